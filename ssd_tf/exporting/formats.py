"""The formats of an export by their names, and where their files are."""

import os
import pathlib
from collections.abc import Iterable

import numpy as np

from ssd_tf import command, files, serving
from ssd_tf.command import UserError
from ssd_tf.config import DetectionParams
from ssd_tf.exporting.description import Model, describe

SAVED_MODEL = "saved_model"
ONNX = "onnx"
TFLITE_INT8 = "tflite_int8"
TFLITE = ("tflite", "tflite_float16", "tflite_dynamic", TFLITE_INT8)
FORMATS = (SAVED_MODEL, *TFLITE, ONNX)


def file_of(
    export_dir: str | os.PathLike, name: str, raw_heads: bool = False
) -> pathlib.Path:
    """Where a format's file is: model.onnx, model_int8.tflite ..."""
    if name == ONNX:
        return pathlib.Path(export_dir) / "model.onnx"
    precision = name.removeprefix("tflite")
    heads = "_raw" if raw_heads else ""
    return pathlib.Path(export_dir) / f"model{precision}{heads}.tflite"


def write_file(
    model: Model,
    name: str,
    export_dir: str | os.PathLike,
    options: DetectionParams = DetectionParams(),
    raw_heads: bool = False,
    calibration: Iterable[np.ndarray] = (),
) -> pathlib.Path:
    """Writes a TFLite or ONNX file in place of an older one.

    Args:
      model: with its weights.
      name: a format that is not `saved_model`.
      export_dir: for the file.
      options: of the detections.
      raw_heads, calibration: see `tflite.convert`.

    Raises:
      UserError: the converter is not installed, or has failed.
    """
    path = file_of(export_dir, name, raw_heads)
    if name == ONNX:
        content = _onnx(model, options)
    else:
        command.import_extra("ai_edge_litert", "export")
        from ssd_tf.exporting import tflite

        content = tflite.convert(model, name, options, raw_heads, calibration)
    with files.replace_file(path) as temporary:
        temporary.write_bytes(content)
    return path


def _onnx(model, options):
    command.import_extra("tf2onnx", "export")
    from ssd_tf.exporting import onnx_file

    try:
        converted = onnx_file.convert(model, options)
    except onnx_file.ConversionError as error:
        raise UserError(f"--formats=onnx: {error}") from error
    return converted.SerializeToString()


def write_companions(
    model: Model, export_dir: pathlib.Path, options: DetectionParams
) -> None:
    """Writes labels.txt and model.json beside TFLite and ONNX files."""
    names = "".join(f"{name}\n" for name in model.class_names)
    files.write_text(export_dir / pathlib.Path(serving.LABELS_FILE).name, names)
    files.write_json(
        export_dir / pathlib.Path(serving.MODEL_FILE).name,
        describe(model, options),
    )
