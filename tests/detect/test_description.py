"""What an export says of itself is what an evaluation knows of the net."""

import json

import numpy as np
import pytest

from ssd_tf.command import UserError
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.config.presets import PRESETS, resized
from ssd_tf.detect import description as model_json
from ssd_tf.detect import detectors
from ssd_tf.export import model as description
from ssd_tf.nets.ssd import SSDNet

OPTIONS = DetectionParams(select_threshold=0.3)


@pytest.fixture(scope="module")
def described(trained):
    names = trained.settings.class_names
    model = description.Model(trained.net, names, "runs/a/ckpt-4", 4)
    return description.describe(model, OPTIONS)


def packed(folder, text):
    """A .tflite file with this model.json behind it."""
    path = folder / "model.tflite"
    path.write_bytes(model_json.pack(b"TFL3", {"model.json": text}))
    return path


def test_a_checkpoint_comes_back(trained, described, tmp_path):
    checkpoint = detectors.load_detector(trained.train_dir, OPTIONS)
    found = model_json.read(packed(tmp_path, json.dumps(described)))
    assert found.input_size == checkpoint.input_size
    np.testing.assert_array_equal(found.anchors, checkpoint.anchors)
    assert found.detection == vars(OPTIONS)
    assert found.source == {
        "model_name": trained.net.params.model_name,
        "exported_from": "runs/a/ckpt-4",
        "step": 4,
    }


def test_anchors_of_an_image_that_is_not_square(tmp_path):
    params = resized(PRESETS["ssd_128_mobilenet_v2"], (96, 160))
    net = SSDNet(params)
    values = description.describe(
        description.Model(net, ("a",) * 20), DetectionParams()
    )
    found = model_json.read(packed(tmp_path, json.dumps(values)))
    assert found.input_size == (96, 160)
    centres = (found.anchors[:, :2] + found.anchors[:, 2:]) / 2
    np.testing.assert_allclose(centres, net.flat_anchors[:, :2], atol=1e-6)


def test_a_saved_model_has_it_in_its_assets(described, tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "model.json").write_text(json.dumps(described))
    assert model_json.read(tmp_path).source["step"] == 4


def test_nothing_is_said_of_other_tools_models(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"TFL3")
    assert model_json.read(tmp_path / "model.tflite") is None
    assert model_json.read(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"input": 3}'])
def test_a_damaged_description_is_named(tmp_path, text):
    path = packed(tmp_path, text)
    with pytest.raises(UserError, match="model.tflite: its model.json does"):
        model_json.read(path)
