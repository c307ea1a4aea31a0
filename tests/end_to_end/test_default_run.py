"""The whole way, from pictures to a SavedModel, in small."""

import json

import pytest
from PIL import Image
from served import load_predictor

from ssd_tf import demo

SMALL = {"batch_size": 8, "max_number_of_steps": 3, "log_every_n_steps": 1}


@pytest.mark.slow
def test_everything_that_is_promised_is_there(tmp_path, capsys):
    metrics = demo.default_run(tmp_path, 24, 8, **SMALL)
    shown = capsys.readouterr().out
    for path in (
        "raw",
        "data",
        "train",
        "metrics.json",
        "report/index.html",
        "detections.png",
        "export/1",
    ):
        assert (tmp_path / path).exists()
        assert str(tmp_path / path) in shown
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert metrics["num_images"] == 8
    with Image.open(tmp_path / "detections.png") as sheet:
        assert sheet.width > sheet.height > 100

    predict, names = load_predictor(tmp_path / "export")
    picture = next((tmp_path / "raw" / "JPEGImages").iterdir())
    assert predict([picture.read_bytes()])["detection_boxes"].shape[0] == 1
    assert len(names) == 4

    # Once more: nothing is trained again, and the next version is exported.
    before = sorted((tmp_path / "train").glob("ckpt*"))
    demo.default_run(tmp_path, 24, 8, **SMALL)
    assert "going on from step 3" in capsys.readouterr().out
    assert sorted((tmp_path / "train").glob("ckpt*")) == before
    assert (tmp_path / "export" / "2").is_dir()
