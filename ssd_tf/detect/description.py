"""What model.json tells of an exported model, read back.

`exporting.description` makes it; it lies in a SavedModel's assets, in the
metadata of an ONNX file, and in the archive behind a TFLite file. Nothing here
needs TensorFlow.
"""

import json
import os
import pathlib
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np

from ssd_tf.command import UserError
from ssd_tf.detect import runtimes
from ssd_tf.export import tflite_metadata
from ssd_tf.multibox import anchors, boxes

_DAMAGED = (
    "{path}: its model.json does not describe a model ({error!r}); export it "
    "again"
)

_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


class Described(NamedTuple):
    """An exported model as far as an evaluation asks."""

    input_size: tuple[int, int]  # height, width, pixels
    anchors: np.ndarray  # float32 [A, 4], corners
    detection: dict[str, Any]  # the options of its detections
    source: dict[str, Any]  # the net and the checkpoint that it was made from


def read(path: str | os.PathLike) -> Described | None:
    """What is said of a SavedModel's folder, a .tflite or an .onnx file.

    Returns:
      None where nothing is said: it is another tool's.

    Raises:
      UserError: the description is damaged.
    """
    values = load(path)
    try:
        return None if values is None else _described(values)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(_DAMAGED.format(path=path, error=error)) from error


def load(path: str | os.PathLike) -> dict[str, Any] | None:
    """All that is said, as `exporting.description.describe` makes it.

    Returns:
      None where nothing is said.

    Raises:
      UserError: the file or its description is damaged.
    """
    try:
        text = _text(path)
        return None if text is None else json.loads(text)
    except _UNREADABLE as error:
        raise UserError(_DAMAGED.format(path=path, error=error)) from error


def _text(path):
    path = pathlib.Path(path)
    if path.is_dir():
        place = path / "assets" / tflite_metadata.MODEL
        return place.read_text("utf-8") if place.is_file() else None
    if path.suffix == ".onnx":
        return runtimes.onnx_metadata(path).get(tflite_metadata.MODEL)
    try:
        return tflite_metadata.read_packed(path, tflite_metadata.MODEL)
    except tflite_metadata.NotPackedError:
        return None


def _described(values):
    size = values["input"]["height"], values["input"]["width"]
    made_from = {
        "model_name": values["model_name"],
        "exported_from": values["checkpoint"],
        "step": values["step"],
    }
    return Described(
        size,
        boxes.to_corners(_anchors(size, values["anchors"])),
        values["detection"],
        made_from,
    )


def _anchors(size, layout):
    layers = zip(
        *(layout[key] for key in ("feat_shapes", "sizes", "ratios", "steps")),
        strict=True,
    )
    return anchors.flatten_anchors(
        [
            anchors.ssd_anchor_one_layer(
                size, *layer, layout["offset"], layout["clip"]
            )
            for layer in layers
        ]
    )
