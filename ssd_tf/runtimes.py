"""TFLite and ONNX files, run one way.

Both take RGB pixels in 0..255, in the type of their input, at its size; what a
net subtracts and divides by is in the file. They answer with detections, named
as everywhere here or, in a TFLite file without such names, in the order of
`TFLite_Detection_PostProcess`: boxes, classes, scores, number.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ssd_tf import command
from ssd_tf.command import UserError

NAMES = (
    "detection_boxes",
    "detection_scores",
    "detection_classes",
    "num_detections",
)
# What TFLite_Detection_PostProcess answers with, by the order of its outputs.
_POSTPROCESS_ORDER = (
    "detection_boxes",
    "detection_classes",
    "detection_scores",
    "num_detections",
)


class Runtime(NamedTuple):
    """A model file that is ready to run."""

    input_size: tuple[int, int]  # height, width, pixels
    # RGB float32 [B, H, W, 3] in 0..255 -> arrays with a batch axis by `NAMES`;
    # classes are int32, 1-based.
    run: Callable[[np.ndarray], dict[str, np.ndarray]]
    name: str


def load_tflite(path: str | os.PathLike) -> Runtime:
    """Loads a .tflite file; its images are run one by one.

    Raises:
      UserError: no such file, or not one of a detector.
    """
    interpreter = _interpreter(path)
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    outputs = _tflite_outputs(interpreter, path)

    def run_one(image: np.ndarray) -> dict[str, np.ndarray]:
        interpreter.set_tensor(given["index"], _quantized(image[None], given))
        interpreter.invoke()
        found = {
            name: _dequantized(interpreter.get_tensor(each["index"]), each)
            for name, each in outputs.items()
        }
        return _normalised(found)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return _stack([run_one(image) for image in images])

    return Runtime(_input_size(given["shape"], path), run, "TFLite")


def _interpreter(path):
    litert = command.import_extra("ai_edge_litert.interpreter", "export")
    try:
        return litert.Interpreter(str(path))
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: is no TFLite model that can be loaded ({error})"
        ) from error


def _tflite_outputs(interpreter, path):
    """Details of the four outputs by their names."""
    details = interpreter.get_output_details()
    for signature in interpreter.get_signature_list().values():
        if {*signature["outputs"]} >= {*NAMES}:
            runner = interpreter.get_signature_runner()
            by_name = runner.get_output_details()
            return {name: by_name[name] for name in NAMES}
    if len(details) != len(_POSTPROCESS_ORDER):
        raise UserError(
            f"{path}: has {len(details)} outputs and none of their names; "
            f"expected {', '.join(NAMES)}"
        )
    return dict(zip(_POSTPROCESS_ORDER, details, strict=True))


def _quantized(image: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    dtype = details["dtype"]
    scale, zero = details["quantization"]
    if scale:
        image = image / scale + zero
    if np.issubdtype(dtype, np.integer):
        bounds = np.iinfo(dtype)
        image = np.clip(np.rint(image), bounds.min, bounds.max)
    return image.astype(dtype)


def _dequantized(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    scale, zero = details["quantization"]
    return (values.astype(np.float32) - zero) * scale if scale else values


def _normalised(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Classes from 1, int32, 0 pads; boxes cut to the image.

    Whole numbers count from 1 as everywhere in this package, floats from 0 as
    the TFLite op gives them, which does not cut boxes either.
    """
    classes = np.asarray(found["detection_classes"])
    count = np.asarray(found["num_detections"]).astype(np.int32).reshape(-1)
    first = 1 if np.issubdtype(classes.dtype, np.floating) else 0
    classes = classes.astype(np.int32) + first
    real = np.arange(classes.shape[1]) < count[:, None]
    return {
        **found,
        "detection_boxes": np.clip(found["detection_boxes"], 0.0, 1.0),
        "detection_classes": np.where(real, classes, 0),
        "num_detections": count,
    }


def _stack(results):
    return {
        name: np.concatenate([result[name] for result in results])
        for name in NAMES
    }


def _input_size(shape, path):
    height, width = shape[1:3]
    if not all(isinstance(x, int | np.integer) and x > 0 for x in shape[1:3]):
        raise UserError(
            f"{path}: its input has no fixed size ({list(shape)}); expected "
            "[batch, height, width, 3]"
        )
    return int(height), int(width)


def load_onnx(path: str | os.PathLike) -> Runtime:
    """Loads a .onnx file; whole batches where its input allows.

    Raises:
      UserError: no such file, or not one of a detector.
    """
    onnxruntime = command.import_extra("onnxruntime", "export")
    try:
        session = onnxruntime.InferenceSession(str(path))
    except Exception as error:  # onnxruntime's own have no common base
        raise UserError(
            f"{path}: is no ONNX model that can be loaded ({error})"
        ) from error
    (given,) = session.get_inputs()
    missing = {*NAMES} - {each.name for each in session.get_outputs()}
    if missing:
        raise UserError(f"{path}: has no output {sorted(missing)[0]}")
    dtype = np.uint8 if given.type == "tensor(uint8)" else np.float32

    def run_batch(images: np.ndarray) -> dict[str, np.ndarray]:
        if dtype == np.uint8:
            images = np.rint(images)
        found = session.run(NAMES, {given.name: images.astype(dtype)})
        return _normalised(dict(zip(NAMES, found, strict=True)))

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        if given.shape[0] == 1:
            return _stack([run_batch(image[None]) for image in images])
        return run_batch(images)

    return Runtime(_input_size(given.shape, path), run, "ONNX Runtime")


def load_openvino(path: str | os.PathLike) -> Runtime:
    """Loads a .onnx file into OpenVINO, on the CPU, in float32.

    Raises:
      UserError: OpenVINO is not installed, or cannot read the file.
    """
    openvino = command.import_extra("openvino", "openvino")
    # Its own choice is bfloat16 where the CPU has it.
    precision = {"INFERENCE_PRECISION_HINT": "f32"}
    try:
        model = openvino.Core().compile_model(str(path), "CPU", precision)
    except RuntimeError as error:
        raise UserError(
            f"{path}: is no ONNX model that OpenVINO can load ({error})"
        ) from error
    shape = model.input(0).partial_shape
    size = [each.get_length() if each.is_static else -1 for each in shape]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        found = model({0: images.astype(np.float32)})
        return _normalised({name: found[name] for name in NAMES})

    return Runtime(_input_size(size, path), run, "OpenVINO")
