"""The command that imports weights: formats, report, refusals."""

import dataclasses
import json
import pickle
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import error_of, finish, start

from ssd_tf.command import UserError
from ssd_tf.config import run as config
from ssd_tf.config.presets import SSD_128_MOBILENET_V2
from ssd_tf.nets import checkpoint
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import __main__ as import_weights
from ssd_tf.weights import formats, matching
from ssd_tf.weights.imported import Imported, Tensors

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
    """What keras.applications would publish for the small net's trunk."""
    keras.utils.set_random_seed(2)
    model = keras.applications.MobileNetV2(
        input_shape=(128, 128, 3), alpha=0.35, include_top=False, weights=None
    )
    path = tmp_path_factory.mktemp("trunk") / "mobilenet_v2.weights.h5"
    model.save_weights(path)
    return path, model


def test_tensors_remember_what_was_taken():
    tensors = Tensors({"a": np.zeros(1), "b": np.ones(2), "c": np.ones(3)})
    assert "b" in tensors and "d" not in tensors
    assert tensors.take("b").shape == (2,)
    assert tensors.unused == ("a", "c")
    with pytest.raises(KeyError):
        tensors.take("d")


def test_a_complete_detector_is_taken_whole(arrays):
    target = SSDNet(PARAMS)
    report = matching.assign(target, Imported(arrays, PARAMS, unused=("x",)))
    assert report.fits() and set(report.matched) == set(arrays)
    assert report.unused == ("x",) and not report.fresh
    for name, variable in target.variables_by_name().items():
        np.testing.assert_array_equal(variable, arrays[name])


def test_the_report_names_what_did_not_fit(arrays):
    some = dict(arrays, stranger=np.zeros(1))
    gone = "Conv1/weights"
    other = "stride8_box/conv_cls/pointwise/weights"
    some.pop(gone)
    some[other] = some[other][..., 1:]
    target = SSDNet(PARAMS)
    before = target.variables_by_name()[other].numpy()
    report = matching.assign(target, Imported(some, PARAMS))
    assert not report.fits(ignore_missing=True)
    assert report.missing == (gone,) and report.unused == ("stranger",)
    assert report.mismatched == (
        (other, arrays[other].shape, some[other].shape),
    )
    np.testing.assert_array_equal(target.variables_by_name()[other], before)


def test_of_a_classifier_only_the_trunk_is_expected(arrays):
    trunk = {
        name: array
        for name, array in arrays.items()
        if matching.in_trunk(name, PARAMS)
    }
    report = matching.assign(
        SSDNet(PARAMS), Imported(trunk, PARAMS, detector=False)
    )
    assert report.fits()
    scopes = {name.split("/")[0] for name in report.fresh}
    boxes = {f"{name}_box" for name in PARAMS.feat_layers}
    assert scopes == boxes | {"extra1", "extra2"}


def make_file(folder, kind):
    """A small file of a kind, as its software writes it."""
    path = folder / f"weights.{kind}"
    if kind == "h5":
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        path = folder / "x.weights.h5"
        model.save_weights(path)
    elif kind == "keras":
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.save(path)
    elif kind == "torch":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights/data.pkl", b"")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({}))
    elif kind == "caffemodel":
        path.write_bytes(b"\x0a\x03VGG")
    else:
        name = "net/block4_box/conv_cls/weights" if kind == "port" else "a/w"
        write_checkpoint(path, {name: np.zeros((2, 2), "f")})
        if kind == "slim":
            path = path.with_name(path.name + ".index")
    return path


def write_checkpoint(path, tensors):
    tf.raw_ops.SaveV2(
        prefix=str(path),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("h5", "keras"),
        ("keras", "keras"),
        ("torch", "torch"),
        ("pickle", "torch"),
        ("caffemodel", "caffe"),
        ("port", "port"),
        ("slim", "slim"),
    ],
)
def test_the_format_is_what_the_file_looks_like(kind, name, tmp_path):
    assert formats.guess(make_file(tmp_path, kind)) == name


def test_any_file_of_a_checkpoint_stands_for_it(tmp_path):
    index = make_file(tmp_path, "slim")
    (data,) = tmp_path.glob("*.data-*")
    for path in (index, data, index.with_suffix("")):
        assert formats.guess(path) == "slim"
        assert list(formats.read(path).arrays) == ["a/w"]


def test_a_file_of_no_format_is_refused(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_text("hello")
    with pytest.raises(UserError, match="weights.bin: neither a TensorFlow"):
        formats.guess(path)
    with pytest.raises(UserError, match="no.such"):
        formats.guess(tmp_path / "no.such")


def test_moving_averages_are_of_tf1_only(tmp_path):
    path = make_file(tmp_path, "h5")
    with pytest.raises(UserError, match="--ema is for TF1 checkpoints"):
        formats.load(path, PARAMS, ema=True)


def imported_detector(arrays, number):
    params = dataclasses.replace(PARAMS, num_classes=number)
    return Imported(arrays, params)


def test_class_names_by_number_or_file(arrays, tmp_path):
    names = import_weights.class_names_of
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
    report = import_weights.import_weights(
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
    report = import_weights.import_weights(given, (), output)
    assert len(report.missing) == 5 and not output.exists()
    report = import_weights.import_weights(given, (), output, True)
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
