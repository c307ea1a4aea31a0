"""The images of an export: what of a split can be used, and what is told."""

import types

import numpy as np
import pytest
import tensorflow as tf
from hostile_images import HEIGHT, PICTURES, WIDTH

from ssd_tf.command import UserError
from ssd_tf.datasets import ground_truth
from ssd_tf.export import images as export_images

BOX = [0.1, 0.2, 0.6, 0.8]


@pytest.fixture
def split(monkeypatch):
    """Makes encoded images a split; each has one box of class 1."""

    def make(**images):
        records = {
            "image": [*images.values()],
            "source_id": [*images],
            "boxes": [[BOX]] * len(images),
            "labels": np.ones((len(images), 1), np.int64),
            "difficult": np.zeros((len(images), 1), bool),
            "crowd": np.zeros((len(images), 1), bool),
        }
        data = tf.data.Dataset.from_tensor_slices(records)
        truth = types.SimpleNamespace(read=lambda: data)
        monkeypatch.setattr(ground_truth, "open_split", lambda *_, **__: truth)

    return make


def test_what_cannot_be_decoded_is_named_and_left_out(split, capsys):
    cut = PICTURES["jpeg"][:200]
    split(cut=cut, good=PICTURES["jpeg"], text=b"text", png=PICTURES["png"])
    encoded, measure = export_images.annotated("D", "test", 10, ["a"])
    assert encoded == [PICTURES["jpeg"], PICTURES["png"]]
    said = capsys.readouterr().out
    assert "image cut: cannot be decoded and is left out" in said
    assert "image text:" in said and "image good" not in said
    # Detections belong to the images that are left.
    found = {
        "detection_boxes": np.array([[BOX], [BOX]], np.float32),
        "detection_scores": np.array([[0.9], [0.8]], np.float32),
        "detection_classes": np.ones((2, 1), int),
        "num_detections": np.ones(2, int),
    }
    assert measure(found) == pytest.approx(1.0)
    missed = found | {"num_detections": np.array([0, 1])}
    assert measure(missed) < 0.6


def test_calibration_leaves_it_out_too(split, capsys):
    split(cut=PICTURES["jpeg"][:200], good=PICTURES["jpeg"])
    images = export_images.calibration("D", "train", 10, (6, 8))
    (image,) = images
    assert image.shape == (6, 8, 3) and image.max() > 200
    assert "image cut:" in capsys.readouterr().out


def test_no_more_images_are_read_than_asked(split):
    split(a=PICTURES["jpeg"], b=PICTURES["png"], c=PICTURES["bmp"])
    assert len(export_images.annotated("D", "test", 2, ["a"])[0]) == 2
    assert len([*export_images.calibration("D", "test", 1, (6, 8))]) == 1


def test_no_image_at_all_is_one_line(split):
    split(cut=PICTURES["jpeg"][:200])
    with pytest.raises(UserError, match="D: no image of split 'test'"):
        export_images.annotated("D", "test", 10, ["a"])
    with pytest.raises(UserError, match="D: no image of split 'train'"):
        export_images.calibration("D", "train", 10, (HEIGHT, WIDTH))
