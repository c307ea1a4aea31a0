"""Models that are loaded, and such that are damaged or of something else."""

import pytest
import tensorflow as tf

from ssd_tf.command import UserError
from ssd_tf.detect import detectors, runtimes, saved_model


class Doubling(tf.Module):
    """A model of something else."""

    def __init__(self):
        self.two = tf.Variable(2)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def image_bytes(self, image_bytes):
        return {"doubled": self.two * tf.strings.length(image_bytes)}


class Finding(tf.Module):
    """A detector that finds nothing, and says one thing more."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def image_bytes(self, image_bytes):
        number = tf.size(image_bytes)
        return {
            "detection_boxes": tf.zeros([number, 1, 4]),
            "detection_scores": tf.zeros([number, 1]),
            "detection_classes": tf.zeros([number, 1], tf.int32),
            "num_detections": tf.zeros([number], tf.int32),
            "version": tf.constant(7),
        }


def save(module, folder, signature="image_bytes"):
    signatures = {signature: module.image_bytes}
    tf.saved_model.save(module, str(folder), signatures)


def test_what_detects_is_loaded(tmp_path):
    save(Finding(), tmp_path)
    (tmp_path / "assets" / "labels.txt").write_text("cat\ndog\n")
    model = detectors.load_detector(tmp_path)
    assert model.class_names == ("cat", "dog")
    found = model.predict({"image": [b"a", b"b"]})
    assert {*found} == {*runtimes.NAMES}
    assert found["detection_boxes"].shape == (2, 1, 4)


@pytest.mark.parametrize("has_labels", [False, True])
@pytest.mark.parametrize("signature", ["serving_default", "image_bytes"])
def test_a_model_of_something_else_is_one_line(tmp_path, signature, has_labels):
    module = Doubling()
    tf.saved_model.save(module, str(tmp_path), {signature: module.image_bytes})
    if has_labels:
        (tmp_path / "assets" / "labels.txt").write_text("cat\n")
    with pytest.raises(UserError) as caught:
        detectors.load_detector(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: has no signature image_bytes")
    assert f"signatures there: {signature}" in message
    assert "ssd_tf.export" in message


@pytest.mark.parametrize(
    "name", ["saved_model.pb", "variables/variables.index"]
)
def test_a_damaged_export_is_one_line(tmp_path, name):
    save(Doubling(), tmp_path / "1")
    path = tmp_path / "1" / name
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="/1: is no SavedModel that can"):
        detectors.load_detector(tmp_path)


@pytest.mark.parametrize("labels", [None, b"\xff\n"])
def test_an_export_without_names_is_one_line(tmp_path, labels):
    if labels:
        (tmp_path / "assets").mkdir()
        (tmp_path / "assets" / "labels.txt").write_bytes(labels)
    with pytest.raises(UserError, match="labels.txt: .*expected an export of"):
        saved_model.read_labels(tmp_path)


@pytest.mark.parametrize(
    "text, limit",
    [
        ('{"max_pixels": 9}', 9),
        *((text, None) for text in ("", "[]", "{}", '{"max_pixels": "many"}')),
    ],
)
def test_the_limit_that_an_export_states(tmp_path, text, limit):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "model.json").write_text(text)
    assert detectors._max_pixels(tmp_path) == limit


def test_a_file_of_no_detector_is_one_line(tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"no model")
    with pytest.raises(UserError, match="a.tflite"):
        detectors.load_detector(tmp_path / "a.tflite")
