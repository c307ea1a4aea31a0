"""What a verification concludes from detections; no file is run here."""

import json
import types

import numpy as np
import pytest
from hostile_images import PICTURES

from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.export import runner, verify
from ssd_tf.export.formats import ExportedFile

NET = types.SimpleNamespace(
    params=types.SimpleNamespace(img_shape=(8, 8)), flat_anchors=[None] * 777
)


def answer(count, score=0.9, classes=None):
    """A batch of one image with boxes one below the other."""
    top = np.arange(count)[:, None] / max(count, 1)
    height = 1 / max(count, 1)
    boxes = np.concatenate([top, top * 0, top + height, top * 0 + 1], axis=1)
    return {
        "detection_boxes": boxes[None].astype(np.float32),
        "detection_scores": np.full((1, count), score, np.float32),
        "detection_classes": np.array(
            [np.ones(count) if classes is None else classes], int
        ),
        "num_detections": np.array([count]),
        "seconds": np.array([0.01]),
    }


@pytest.fixture
def judged(monkeypatch, tmp_path):
    """The entries of files whose detections are given."""

    def judge(expected, found, name="onnx", runtime="ONNX Runtime", mAP=None):
        monkeypatch.setattr(verify, "_run_net", lambda *_: expected)
        monkeypatch.setattr(runner, "run_in_process", lambda *_: found)
        path = tmp_path / "model"
        path.write_bytes(bytes(1000))
        measure = None if mAP is None else lambda _: mAP
        subject = ExportedFile(name, runtime, path, DetectionParams())
        return verify.verify(NET, [subject], [PICTURES["jpeg"]], measure)

    return judge


def test_the_same_is_ok(judged):
    keras, entry = judged(answer(4), answer(4), mAP=0.5)
    assert keras["name"] == "keras" and keras["mAP"] == 0.5
    assert entry["failures"] == [] and entry["compared"] == 8
    assert (entry["matched"], entry["loss"]) == (1.0, 0.0)


@pytest.mark.parametrize("score", [0.9, 0.02])
def test_a_file_that_finds_nothing_fails(judged, score):
    """Also where the net is not sure of anything."""
    _, entry = judged(answer(4, score), answer(0))
    assert entry["failures"] == [
        "0.0% of 4 detections are paired (expected 99.5%)"
    ]


def test_that_nothing_was_compared_is_told(judged, capsys):
    entries = judged(answer(0), answer(0))
    assert entries[1]["failures"] == [] and entries[1]["compared"] == 0
    assert entries[1]["matched"] is None and entries[1]["score"] is None
    verify.print_table(entries)
    assert "NOT COMPARED" in capsys.readouterr().out
    assert "name images with objects by --verify" in verify.notes(entries)[0]


def test_on_annotated_images_that_is_a_failure(judged):
    _, entry = judged(answer(0), answer(0), mAP=0.0)
    assert entry["failures"] == ["nothing is detected, so nothing was compared"]


@pytest.mark.parametrize("name", ["tflite_dynamic", "tflite_int8"])
def test_a_quantised_file_that_confuses_classes_fails(judged, name):
    classes = 1 + np.arange(40) % 2
    _, entry = judged(answer(40), answer(40, classes=classes), name)
    assert entry["matched"] == 0.5
    assert any("are paired" in words for words in entry["failures"])


def test_a_quantised_file_whose_scores_are_all_off_fails(judged):
    """Single ones may be."""
    one_off = answer(40)
    one_off["detection_scores"][0, 0] = 0.6
    assert judged(answer(40), one_off, "tflite_int8")[1]["failures"] == []
    _, entry = judged(answer(40), answer(40, 0.6), "tflite_int8")
    assert entry["failures"] == [
        "scores differ on average by 0.3 (allowed 0.05)"
    ]


def test_that_map_was_not_measured_is_told_of_quantised_files(judged):
    for name, number in (("tflite_int8", 1), ("onnx", 0)):
        entries = judged(answer(4), answer(4), name)
        assert len(verify.notes(entries)) == number
    assert not verify.notes(judged(answer(4), answer(4), "tflite_int8", mAP=1))


def test_scores_that_are_no_numbers_fail_and_are_written(judged, tmp_path):
    entries = judged(answer(4), answer(4, np.nan), mAP=0.5)
    assert "scores differ by nan (allowed 0.0001)" in entries[1]["failures"]
    verify.write(tmp_path, entries)
    written = json.loads((tmp_path / verify.VERIFY_FILE).read_text())
    assert written["models"][1]["score"] is None
    assert written["models"][1]["failures"]


def test_a_file_is_compared_with_the_net_by_its_own_options(
    monkeypatch, tmp_path
):
    asked = []

    def run_net(net, options, *_):
        asked.append(options)
        return answer(4)

    monkeypatch.setattr(verify, "_run_net", run_net)
    monkeypatch.setattr(runner, "run_in_process", lambda *_: answer(4))
    high = DetectionParams(select_threshold=0.6)
    files = [
        ExportedFile("onnx", runner.ONNX_RUNTIME, tmp_path, high),
        ExportedFile("tflite", runner.LITERT, tmp_path, DetectionParams()),
        ExportedFile("tflite", runner.RAW_HEADS, tmp_path, DetectionParams()),
    ]
    verify.verify(NET, files, [PICTURES["jpeg"]])
    # Its op has no limit of candidates.
    assert asked == [high, DetectionParams(top_k=777), DetectionParams()]
