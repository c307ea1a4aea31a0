"""A net and every form of it that can be evaluated detect the same."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from processes import SUPPORT, finish, start
from served import export_saved_model

from ssd_tf.command import UserError
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.datasets import ground_truth
from ssd_tf.detect import detectors
from ssd_tf.evaluation import evaluate, run
from ssd_tf.input_pipeline import batches as input_pipeline


@pytest.fixture(scope="module")
def forms(trained, tmp_path_factory):
    """Kind of a model -> its path."""
    folder = tmp_path_factory.mktemp("forms")
    finish(start(SUPPORT / "export_files.py", trained.train_dir, folder))
    export_saved_model(
        trained.net, trained.settings.class_names, folder / "exported"
    )
    return {
        "train_dir": trained.train_dir,
        "checkpoint": trained.train_dir / "ckpt-4",
        "SavedModel": folder / "exported",
        "version": folder / "exported" / "1",
        "TFLite": folder / "model.tflite",
        "ONNX": folder / "model.onnx",
    }


def collect(trained, path, batch_size=5, options=DetectionParams()):
    truth = ground_truth.open_split(trained.dataset_dir, "test")
    predictor = detectors.load_detector(
        path, options, category_ids=truth.category_ids
    )
    batches = input_pipeline.make_for_eval(
        truth.read(), evaluate.prepare_for(predictor), batch_size
    )
    number = len(truth.class_names)
    return evaluate.collect(predictor.predict, batches, number, quiet=True)


@pytest.fixture(scope="module")
def expected(trained):
    """What the net itself finds on the test images."""
    batches = input_pipeline.make_for_eval(
        trained.records("test"),
        input_pipeline.prepare_for(trained.settings.params),
        4,
    )
    detect = evaluate.make_detect(trained.net)

    def predict(batch):
        found = detect(batch["image"])._asdict()
        return {name: part.numpy() for name, part in found.items()}

    number = len(trained.settings.class_names)
    images = evaluate.collect(predict, batches, number, quiet=True)
    assert len(images) == 12
    assert sum(len(image.found.scores) for image in images) > 100
    return images


def share_of_twins(image, other, number=20):
    """Of the best detections, how many the other image has too."""
    found, wanted = image.found, other.found
    number = min(number, len(wanted.scores))
    # Other orders of additions in float32; pixels of some hundred.
    same = np.abs(wanted.boxes[:number, None] - found.boxes).max(-1) < 0.05
    same &= wanted.classes[:number, None] == found.classes
    same &= np.abs(wanted.scores[:number, None] - found.scores) < 1e-4
    return same.any(axis=1).mean()


@pytest.mark.parametrize(
    "kind",
    ["train_dir", "checkpoint", "SavedModel", "version", "TFLite", "ONNX"],
)
def test_all_forms_detect_the_same(trained, forms, expected, kind):
    found = collect(trained, forms[kind])
    assert len(found) == len(expected)
    for image, other in zip(found, expected, strict=True):
        assert image.source_id == other.source_id
        assert (image.height, image.width) == (other.height, other.width)
        np.testing.assert_array_equal(image.truth.boxes, other.truth.boxes)
        assert share_of_twins(image, other) == 1


def test_class_names_are_those_of_the_training(trained, forms):
    for kind, path in forms.items():
        names = detectors.class_names(path)
        assert names == (
            None if kind in ("TFLite", "ONNX") else trained.settings.class_names
        )


def test_an_export_tells_what_a_checkpoint_knows(forms):
    options = DetectionParams()
    net, exported = (
        detectors.load_detector(forms[kind], options)
        for kind in ("train_dir", "SavedModel")
    )
    assert exported.input_size == net.input_size
    np.testing.assert_array_equal(exported.anchors, net.anchors)
    assert exported.options == net.options
    assert exported.source["model_name"] == net.source["model_name"]
    # Another tool's file says nothing; a description of another is not its.
    other = detectors.load_detector(forms["ONNX"], options)
    assert other.anchors is None and other.options is None


@pytest.mark.parametrize("what", ["detection_boxes", "detection_scores"])
def test_non_finite_detections_are_refused(forms, what):
    path = forms["ONNX"]
    detector = detectors.load_detector(path)
    images = tf.zeros([1, *detector.input_size, 3])
    found = detector.predict({"image": images})
    broken = dataclasses.replace(
        detector, predict=lambda _: {**found, what: found[what] * np.nan}
    )
    predict = run.checked(broken, "data", 8)
    with pytest.raises(UserError, match=f"{path}: has found non-finite"):
        predict({"image": images})


def test_options_are_a_checkpoints(trained, forms):
    few = DetectionParams(keep_top_k=3)
    found = collect(trained, forms["train_dir"], options=few)
    assert max(len(image.found.scores) for image in found) == 3
    assert [
        kind for kind, path in forms.items() if detectors.has_options(path)
    ] == ["train_dir", "checkpoint"]


def test_detections_of_a_file_stand_in_its_pixels(trained, tmp_path):
    rows = [
        {
            "image_id": "no such image",
            "category_id": 1,
            "bbox": [0, 0, 1, 1],
            "score": 1,
        }
    ]
    record = next(trained.records("test").as_numpy_iterator())
    first = record["source_id"].decode()
    rows.append(
        {
            "image_id": first,
            "category_id": 2,
            "bbox": [10, 20, 30, 40],
            "score": 0.5,
        }
    )
    path = tmp_path / "found.json"
    path.write_text(json.dumps(rows))
    images = collect(trained, path)
    found = images[0].found
    np.testing.assert_allclose(found.boxes, [[20, 10, 60, 40]])
    assert found.classes.tolist() == [2] and found.scores.tolist() == [0.5]
    assert all(len(image.found.scores) == 0 for image in images[1:])
    predictor = detectors.load_detector(path, category_ids=(1, 2, 3))
    assert predictor.image_ids == {first, "no such image"}


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_files_that_are_no_models(tmp_path, suffix, content):
    path = tmp_path / f"model.{suffix}"
    if content is not None:
        path.write_bytes(content)
    message = "no such file" if content is None else "that can be loaded"
    with pytest.raises(UserError, match=message):
        detectors.load_detector(path)
