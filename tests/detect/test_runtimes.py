"""Model files: what they take, and those that are refused in one line."""

import numpy as np
import onnx
import pytest
from onnx_detector import onnx_file
from processes import SUPPORT, finish, start

from ssd_tf.command import UserError
from ssd_tf.detect import detectors, runtimes
from ssd_tf.detect.runtimes import Quantization
from ssd_tf.evaluation.run import checked

PIXELS = np.array([0, 50, 128, 200, 255], np.float32)


@pytest.fixture(scope="module")
def tflite(tmp_path_factory):
    """A folder with the files of small_models.py."""
    folder = tmp_path_factory.mktemp("small")
    finish(start(SUPPORT / "small_models.py", folder))
    return folder


@pytest.mark.parametrize(
    ("dtype", "quantization", "expected"),
    [
        # TFOD's: the graph means -1..1, the file takes pixels.
        (np.uint8, (0.0078125, 128), [0, 50, 128, 200, 255]),
        (np.uint8, (1 / 255, 0), [0, 50, 128, 200, 255]),
        # Means taken off: -123..151.
        (np.uint8, (1.0745, 115), [0, 50, 128, 200, 255]),
        (np.int8, (0.0078125, -1), [-128, -78, 0, 72, 127]),
        # Pixels are meant, wherever their zero is.
        (np.uint8, (1.0, 0), [0, 50, 128, 200, 255]),
        (np.int8, (1.0, -128), [-128, -78, 0, 72, 127]),
        # Calibrated on images of up to 204, or a little of either side.
        (np.uint8, (0.8, 0), [0, 62, 160, 250, 255]),
        (np.int8, (1.1, -118), [-118, -73, -2, 64, 114]),
        (np.int16, (255 / 32767, 0), [0, 6425, 16448, 25700, 32767]),
        # Not quantised.
        (np.uint8, (0.0, 0), [0, 50, 128, 200, 255]),
        (np.int32, (0.0, 0), [0, 50, 128, 200, 255]),
        (np.int8, (0.0, 0), [-128, -78, 0, 72, 127]),
        (np.float32, (0.0, 0), [0, 50, 128, 200, 255]),
    ],
)
def test_pixels_in_the_type_of_the_input(dtype, quantization, expected):
    found = runtimes.from_pixels(PIXELS, dtype, Quantization(*quantization))
    assert found.dtype == dtype
    assert found.tolist() == expected


def test_pixels_are_rounded_and_cut_only_for_integers():
    pixels = np.array([-0.4, 0.6, 254.6, 255.2], np.float32)
    found = runtimes.from_pixels(pixels, np.uint8)
    assert found.tolist() == [0, 1, 255, 255]
    np.testing.assert_array_equal(
        runtimes.from_pixels(pixels, np.float32), pixels
    )


def test_outputs_are_what_their_numbers_stand_for():
    numbers = np.array([0, 128, 255], np.uint8)
    found = runtimes.dequantized(numbers, Quantization(0.5, 128))
    assert found.tolist() == [-64, 0, 63.5]
    assert runtimes.dequantized(numbers, Quantization()) is numbers


@pytest.mark.parametrize("name", ["fits", "two"])
def test_tflite_is_run_by_the_signature_that_detects(tflite, name):
    runtime = runtimes.load_tflite(tflite / f"{name}.tflite")
    assert runtime.input_size == (8, 8)
    found = runtime.run(np.zeros((2, 8, 8, 3), np.float32))
    assert found["detection_classes"].tolist() == [[5], [5]]
    np.testing.assert_allclose(
        found["detection_boxes"], [[[0.1, 0.2, 0.5, 0.6]]] * 2
    )


@pytest.mark.parametrize("name", ["free", "channels_first", "pairs"])
def test_tflite_inputs_that_do_not_fit(tflite, name):
    with pytest.raises(UserError, match=rf"{name}.tflite: its input is \["):
        runtimes.load_tflite(tflite / f"{name}.tflite")


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ([1, 8, 9, 3], onnx.TensorProto.FLOAT),
        (["n", 8, 9, 3], onnx.TensorProto.UINT8),
        ([1, 8, 9, 3], onnx.TensorProto.INT8),
        ([1, 8, 9, 3], onnx.TensorProto.FLOAT16),
    ],
)
def test_onnx_inputs_of_many_types(tmp_path, shape, dtype):
    path = onnx_file(tmp_path / "model.onnx", shape, dtype)
    runtime = runtimes.load_onnx(path)
    assert runtime.input_size == (8, 9)
    found = runtime.run(np.zeros((1, 8, 9, 3), np.float32))
    assert found["detection_classes"].tolist() == [[5]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": [1, 3, 8, 8]}, r"its input is \[1, 3, 8, 8\]"),
        ({"shape": [1, "h", "w", 3]}, r"its input is \[1, -1, -1, 3\]"),
        ({"shape": [4, 8, 8, 3]}, r"its input is \[4, 8, 8, 3\]"),
        ({"shape": [1, 192]}, r"its input is \[1, 192\]"),
        ({"shape": [1, 8, 8, 3], "inputs": 2}, "has 2 inputs; expected one"),
        (
            {"shape": [1, 8, 8, 3], "dtype": onnx.TensorProto.STRING},
            r"its input is tensor\(string\)",
        ),
    ],
)
def test_onnx_inputs_that_do_not_fit(tmp_path, options, message):
    path = onnx_file(tmp_path / "model.onnx", **options)
    with pytest.raises(UserError, match=f"model.onnx: {message}"):
        runtimes.load_onnx(path)


def test_more_classes_than_the_data_has(tmp_path, tflite):
    of_onnx = onnx_file(tmp_path / "model.onnx", [1, 8, 8, 3])
    batch = {"image": np.zeros((1, 8, 8, 3), np.float32)}
    for path in (of_onnx, tflite / "fits.tflite"):
        detector = detectors.load_detector(path)
        enough = checked(detector, "data/pets", 5)(batch)
        assert enough["detection_classes"].tolist() == [[5]]
        message = f"{path}: has found class 5, but data/pets has 4 classes"
        with pytest.raises(UserError, match=message):
            checked(detector, "data/pets", 4)(batch)
