"""Conversion to TFLite: raw heads, the input of int8, and what fails."""

import numpy as np
import pytest
import tensorflow as tf
from exported_files import assert_takes_bytes, detect, metadata_of, resized

from ssd_tf.command import UserError
from ssd_tf.detect import description
from ssd_tf.export import formats, runner, signatures, tflite, verify
from ssd_tf.export import formats as subjects
from ssd_tf.export.model import Model

EXACT = 1e-4


@pytest.fixture(scope="module")
def images(lively, pictures):
    return resized(lively.net, pictures)


@pytest.fixture(scope="module")
def raw_files(lively, images, tmp_path_factory):
    """Files of raw heads by their precision; int8 has seen the dark only."""
    folder = tmp_path_factory.mktemp("raw")
    model = Model(lively.net, lively.settings.class_names)
    seen = {"tflite": (), "tflite_int8": images / 3}
    paths = {}
    for name, calibration in seen.items():
        paths[name] = formats.file_of(folder, name, raw_heads=True)
        paths[name].write_bytes(
            tflite.convert(model, name, raw_heads=True, calibration=calibration)
        )
    return paths


def test_raw_heads_are_those_of_the_signature(raw_files, lively, images):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(raw_files["tflite"]))
    found = interpreter.get_signature_runner()(images=images[:1])
    raw = signatures.make(lively.net)["raw"].function
    expected = raw(tf.constant(images[:1]))
    assert set(found) == set(expected) == {"anchors", "localisations", "logits"}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=EXACT)


@pytest.mark.parametrize(
    ("name", "tolerance"), [("tflite", EXACT), ("tflite_int8", 0.3)]
)
def test_raw_heads_become_what_the_net_detects(
    raw_files, lively, images, name, tolerance
):
    found = runner.load(raw_files[name])(images)
    alike = verify.compare(detect(lively.net, images), found, 0.5)
    assert alike.score < tolerance and alike.box < tolerance
    assert alike.matched > 0.9 and alike.compared > 100


def test_raw_heads_say_what_they_are(raw_files, lively):
    for path in raw_files.values():
        assert description.class_names(path) == lively.settings.class_names
        assert subjects.described(path)["class_names"] == list(
            lively.settings.class_names
        )
        assert b"logits" in metadata_of(path.read_bytes())


def test_a_byte_is_a_pixel_also_after_dark_images(raw_files):
    assert_takes_bytes(raw_files["tflite_int8"])


def test_a_file_without_model_json_is_told_to_be_old(raw_files, tmp_path):
    content = raw_files["tflite"].read_bytes()
    old = tmp_path / "old.tflite"
    old.write_bytes(content[: content.index(b"PK\x03\x04")])
    with pytest.raises(UserError, match="old.tflite: has no model.json"):
        runner.load(old)


def test_ranges_are_not_learnt_from_nothing(lively):
    model = Model(lively.net, lively.settings.class_names)
    with pytest.raises(tflite.ConversionError, match="no image to learn"):
        tflite.convert(model, "tflite_int8", calibration=iter(()))


def test_what_a_converter_says_is_one_line(monkeypatch, tmp_path):
    class Converter:
        def convert(self):
            raise ValueError("failed to legalize 'tf.Foo'\nand\nmore")

    monkeypatch.setattr(tflite, "convert", lambda *_: tflite._run(Converter()))
    with pytest.raises(UserError) as told:
        formats.write_file(None, "tflite", tmp_path)
    assert str(told.value) == (
        "--formats=tflite: the converter said: failed to legalize 'tf.Foo'"
    )
    assert not [*tmp_path.iterdir()]
