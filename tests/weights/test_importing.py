"""The command that imports weights: class names, report, refusals."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from processes import error_of, finish, start
from started import write_checkpoint

from ssd_tf.command import UserError
from ssd_tf.config import run as config
from ssd_tf.config.presets import SSD_128_MOBILENET_V2
from ssd_tf.nets import checkpoint
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import importing
from ssd_tf.weights.__main__ import class_names_of
from ssd_tf.weights.base import Imported

PARAMS = dataclasses.replace(SSD_128_MOBILENET_V2, num_classes=3)
COMMAND = ("-m", "ssd_tf.weights")


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(1)
    return SSDNet(PARAMS)


@pytest.fixture(scope="module")
def arrays(net):
    return {
        name: variable.numpy()
        for name, variable in net.variables_by_name().items()
    }


@pytest.fixture(scope="module")
def trunk_file(tmp_path_factory):
    """Weights for the small net's trunk, as keras.applications saves them."""
    keras.utils.set_random_seed(2)
    model = keras.applications.MobileNetV2(
        input_shape=(128, 128, 3), alpha=0.35, include_top=False, weights=None
    )
    path = tmp_path_factory.mktemp("trunk") / "mobilenet_v2.weights.h5"
    model.save_weights(path)
    return path, model


def imported_detector(arrays, number):
    params = dataclasses.replace(PARAMS, num_classes=number)
    return Imported(arrays, params)


def test_class_names_by_number_or_file(arrays, tmp_path):
    names = class_names_of
    assert names(imported_detector(arrays, 21), None)[14] == "person"
    assert names(imported_detector(arrays, 81), None)[79] == "toothbrush"
    assert names(imported_detector(arrays, 1), None) == ()
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    file = str(tmp_path / "labels.txt")
    assert names(imported_detector(arrays, 3), file) == ("cat", "dog")
    with pytest.raises(UserError, match="names 2 classes, the weights have 3"):
        names(imported_detector(arrays, 4), file)
    with pytest.raises(UserError, match="--labels is missing: .* 3 classes"):
        names(imported_detector(arrays, 4), None)
    named = dataclasses.replace(
        imported_detector(arrays, 3), class_names=("a", "b")
    )
    assert names(named, None) == ("a", "b")


def test_a_detector_becomes_a_checkpoint(arrays, net, tmp_path):
    output = tmp_path / "out"
    report = importing.import_weights(
        Imported(arrays, PARAMS), ("cat", "dog"), output
    )
    assert report.fits()
    loaded = checkpoint.load_net(output)
    for name, variable in loaded.variables_by_name().items():
        np.testing.assert_array_equal(variable, arrays[name])
    settings = config.load(output)
    assert settings.class_names == ("cat", "dog")
    assert settings.params == net.params and settings.untrained == ()
    written = json.loads((output / "import.json").read_text("utf-8"))
    assert set(written["matched"]) == set(arrays)


def test_nothing_is_written_of_an_incomplete_file(arrays, tmp_path):
    some = {name: arrays[name] for name in list(arrays)[5:]}
    output = tmp_path / "out"
    given = Imported(some, PARAMS)
    report = importing.import_weights(given, (), output)
    assert len(report.missing) == 5 and not output.exists()
    report = importing.import_weights(given, (), output, True)
    assert config.load(output).untrained == report.missing
    with pytest.raises(UserError, match="converted"):
        checkpoint.load_net(output)


def test_the_command_imports_a_classifier(trunk_file, tmp_path):
    path, model = trunk_file
    output = tmp_path / "out"
    words = (f"--input={path}", f"--output={output}")
    said = finish(start(*COMMAND, *words, "--model_name=ssd_128_mobilenet_v2"))
    assert "train_ssd.py --checkpoint_path=" in said
    rows = {
        line.split("│")[1].strip(): int(line.split("│")[2])
        for line in said.splitlines()
        if line.startswith("│")
    }
    assert rows["matched"] == len(model.variables)
    assert rows["missing"] == rows["unused"] == rows["shape mismatch"] == 0
    settings = config.load(output)
    assert settings.class_names == () and len(settings.untrained) > 0
    again = error_of(*COMMAND, *words, "--model_name=ssd_128_mobilenet_v2")
    assert again.endswith("is there already; choose a new --output")


def test_the_command_refuses_with_one_line(trunk_file, tmp_path):
    path, _ = trunk_file
    output = f"--output={tmp_path / 'out'}"
    said = error_of(
        *COMMAND, f"--input={path}", output, "--model_name=ssd_300_vgg"
    )
    assert str(path) in said and not (tmp_path / "out").exists()
    assert "--output is missing" in error_of(*COMMAND, f"--input={path}")
    # An empty folder that is there already is no sign of success.
    (tmp_path / "out").mkdir()
    wide = (f"--input={path}", "--model_name=ssd_300_mobilenet_v2")
    error_of(*COMMAND, output, *wide)
    assert not any((tmp_path / "out").iterdir())


def test_inspect_lists_names_and_shapes(tmp_path):
    path = tmp_path / "model.ckpt"
    write_checkpoint(
        path,
        {
            "net/conv1/weights": np.zeros((3, 3, 3, 64), "f"),
            "global_step": np.int64(7),
        },
    )
    said = finish(start(*COMMAND, f"--inspect={path}"))
    cells = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in said.splitlines()
        if line.startswith("│")
    ]
    assert ["net/conv1/weights", "3x3x3x64", "float32"] in cells
    assert ["global_step", "scalar", "int64"] in cells
    assert said.splitlines()[-1] == "2 arrays, 1,729 numbers"
