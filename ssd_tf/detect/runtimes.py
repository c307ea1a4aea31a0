"""TFLite and ONNX files, run one way.

Both take RGB pixels in 0..255, in the type of their input, at its size; what a
net subtracts and divides by is in the file. They answer with detections, named
as everywhere here or, in a TFLite file without such names, in the order of
`TFLite_Detection_PostProcess`: boxes, classes, scores, number.
"""

import os
from collections.abc import Callable, Sequence
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
_ONNX_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


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
    graph = _tflite_graph(path)
    if len(graph.inputs) != 1:
        raise UserError(f"{path}: has {len(graph.inputs)} inputs; expected one")
    ((given, details),) = graph.inputs.items()
    # `shape` has 1 where a side is free.
    size = input_size(details["shape_signature"], path)
    dtype, quantization = details["dtype"], _quantization(details)
    meanings = {
        name: _quantization(each) for name, each in graph.outputs.items()
    }

    def run_one(image: np.ndarray) -> dict[str, np.ndarray]:
        pixels = from_pixels(image[None], dtype, quantization)
        found = graph.run({given: pixels})
        return normalised(
            {name: dequantized(found[name], meanings[name]) for name in NAMES}
        )

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return stack([run_one(image) for image in images])

    return Runtime(size, run, "TFLite")


class _Graph(NamedTuple):
    """One function of a TFLite file; details as its interpreter gives them."""

    inputs: dict[str, dict[str, Any]]
    outputs: dict[str, dict[str, Any]]  # by `NAMES`
    run: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def _tflite_graph(path):
    """Returns the function that detects, by its signature or else its
    outputs.
    """
    litert = command.import_extra("ai_edge_litert.interpreter", "export")
    try:
        # One thread: of several, n, TFLite_Detection_PostProcess leaves out
        # the class behind the n-th (tensorflow issue 56058).
        interpreter = litert.Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: is no TFLite model that can be loaded ({error})"
        ) from error
    return _with_signature(interpreter) or _in_order(interpreter, path)


def _with_signature(interpreter):
    signatures = interpreter.get_signature_list()
    keys = [
        key
        for key, signature in signatures.items()
        if {*signature["outputs"]} >= {*NAMES}
    ]
    if not keys:
        return None
    runner = interpreter.get_signature_runner(keys[0])
    outputs = runner.get_output_details()
    return _Graph(
        runner.get_input_details(),
        {name: outputs[name] for name in NAMES},
        lambda tensors: runner(**tensors),
    )


def _in_order(interpreter, path):
    """Returns the graph of a file without names: outputs in the op's order."""
    outputs = interpreter.get_output_details()
    if len(outputs) != len(_POSTPROCESS_ORDER):
        raise UserError(
            f"{path}: has {len(outputs)} outputs and none of their names; "
            f"expected {', '.join(NAMES)}"
        )
    inputs = {each["name"]: each for each in interpreter.get_input_details()}
    by_name = dict(zip(_POSTPROCESS_ORDER, outputs, strict=True))

    def run(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name, tensor in tensors.items():
            interpreter.set_tensor(inputs[name]["index"], tensor)
        interpreter.invoke()
        return {
            name: interpreter.get_tensor(each["index"])
            for name, each in by_name.items()
        }

    return _Graph(inputs, by_name, run)


def _quantization(details):
    return Quantization(*details["quantization"])


def load_onnx(path: str | os.PathLike) -> Runtime:
    """Loads a .onnx file; whole batches where its input allows.

    Raises:
      UserError: no such file, or not one of a detector.
    """
    session = _onnx_session(path)
    if len(session.get_inputs()) != 1:
        raise UserError(
            f"{path}: has {len(session.get_inputs())} inputs; expected one"
        )
    (given,) = session.get_inputs()
    missing = {*NAMES} - {each.name for each in session.get_outputs()}
    if missing:
        raise UserError(f"{path}: has no output {sorted(missing)[0]}")
    if given.type not in _ONNX_TYPES:
        raise UserError(
            f"{path}: its input is {given.type}; expected one of "
            f"{', '.join(_ONNX_TYPES)}"
        )
    dtype = _ONNX_TYPES[given.type]

    def run_batch(images: np.ndarray) -> dict[str, np.ndarray]:
        found = session.run(NAMES, {given.name: from_pixels(images, dtype)})
        return normalised(dict(zip(NAMES, found, strict=True)))

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        if given.shape[0] == 1:
            return stack([run_batch(image[None]) for image in images])
        return run_batch(images)

    return Runtime(input_size(given.shape, path), run, "ONNX Runtime")


def _onnx_session(path, optimised=True):
    onnxruntime = command.import_extra("onnxruntime", "export")
    options = onnxruntime.SessionOptions()
    if not optimised:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    try:
        return onnxruntime.InferenceSession(str(path), options)
    except Exception as error:  # onnxruntime's own have no common base
        raise UserError(
            f"{path}: is no ONNX model that can be loaded ({error})"
        ) from error


def onnx_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Returns the custom properties of a .onnx file.

    Raises:
      UserError: no such file, or no model.
    """
    # To be read only, a graph need not be made fast.
    session = _onnx_session(path, optimised=False)
    return session.get_modelmeta().custom_metadata_map


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
        return normalised({name: found[name] for name in NAMES})

    return Runtime(input_size(size, path), run, "OpenVINO")


class Quantization(NamedTuple):
    """Meaning of an integer q: (q - zero) * scale."""

    scale: float = 0.0  # 0: for itself
    zero: int = 0


NO_QUANTIZATION = Quantization()


def from_pixels(
    pixels: np.ndarray,
    dtype: np.dtype | type,
    quantization: Quantization = NO_QUANTIZATION,
) -> np.ndarray:
    """Returns pixels in the type of an input.

    Args:
      pixels: float32 in 0..255.
      dtype: of the input; whole numbers are rounded and cut to what it holds.
      quantization: of the input. Where its numbers stand for about 0..255,
        pixels are put into them. Where they stand for something else, such as
        -1..1 or 0..1, the graph means pixels that have been normalised, and
        the input is the pixel itself, for int8 less 128.
    """
    if not np.issubdtype(dtype, np.integer):
        return pixels.astype(dtype)
    bounds = np.iinfo(dtype)
    if _means_pixels(quantization, bounds):
        numbers = pixels / quantization.scale + quantization.zero
    else:
        numbers = pixels - (128 if dtype == np.int8 else 0)
    return np.clip(np.rint(numbers), bounds.min, bounds.max).astype(dtype)


def _means_pixels(quantization, bounds):
    """Returns True if integers stand for 0..255, or the part calibrated."""
    scale, zero = quantization
    least, most = (bounds.min - zero) * scale, (bounds.max - zero) * scale
    # 16 bits are symmetric about 0, whatever is seen. Half of 255 is dark.
    return (zero == 0 or least > -25.5) and 127.5 < most < 300


def dequantized(values: np.ndarray, quantization: Quantization) -> np.ndarray:
    """Returns the values that the numbers of an output stand for."""
    scale, zero = quantization
    return (values.astype(np.float32) - zero) * scale if scale else values


def normalised(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns classes from 1, int32, 0 pads; boxes cut to the image.

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


def stack(results: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns one batch of those of single images."""
    return {
        name: np.concatenate([result[name] for result in results])
        for name in NAMES
    }


def input_size(
    shape: Sequence[int | str | None], path: str | os.PathLike
) -> tuple[int, int]:
    """Returns height and width, pixels, of an input's shape.

    Args:
      shape: as the file states it: no positive number where it is free.
      path: of the file, for the message.

    Raises:
      UserError: not `[batch, height, width, 3]` with a fixed size.
    """
    fixed = [
        int(side) if isinstance(side, int | np.integer) and side > 0 else -1
        for side in shape
    ]
    fits = len(fixed) == 4 and fixed[0] in (-1, 1) and fixed[3] == 3
    if not fits or -1 in fixed[1:3]:
        raise UserError(
            f"{path}: its input is {fixed} (-1 where it is free); expected "
            "[batch, height, width, 3] with a fixed height and width and one "
            "image or any number of them; convert the model so"
        )
    return fixed[1], fixed[2]
