"""Formats by the bytes of files."""

import pickle
import zipfile

import keras
import numpy as np
import pytest
from started import write_checkpoint

from ssd_tf.command import UserError
from ssd_tf.config.presets import SSD_128_MOBILENET_V2
from ssd_tf.weights import formats


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
        formats.load(path, SSD_128_MOBILENET_V2, ema=True)
