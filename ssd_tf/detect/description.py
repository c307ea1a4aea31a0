"""Descriptions inside model files: `model.json` and class names.

Both lie in a SavedModel's assets, in the metadata of an ONNX file, and in the
ZIP archive behind a TFLite file; `export.model` writes `model.json`. Nothing
here needs TensorFlow.
"""

import io
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ssd_tf.command import UserError
from ssd_tf.detect import runtimes
from ssd_tf.multibox import anchors, boxes

MODEL_FILE = "model.json"
LABELS_FILE = "labels.txt"
LABEL_MAP = "labelmap.txt"  # TFLite's name for labels.txt
# What label maps write for a number without class.
_UNUSED = ("", "???")
_DAMAGED = (
    "{path}: its model.json does not describe a model ({error!r}); export it "
    "again"
)
_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


class Described(NamedTuple):
    """An exported model as far as an evaluation needs to know it."""

    input_size: tuple[int, int]  # height, width, pixels
    anchors: np.ndarray  # float32 [A, 4], corners
    detection: dict[str, Any]  # the options of its detections
    source: dict[str, Any]  # the net and the checkpoint that it was made from


def read(path: str | os.PathLike) -> Described | None:
    """Reads the description of a SavedModel's folder, .tflite or .onnx file.

    Returns:
      The description; None for another tool's file.

    Raises:
      UserError: the description is damaged.
    """
    values = load(path)
    try:
        return None if values is None else _described(values)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(_DAMAGED.format(path=path, error=error)) from error


def load(path: str | os.PathLike) -> dict[str, Any] | None:
    """Loads model.json, as `export.model.describe` makes it.

    Returns:
      Its content; None where there is none.

    Raises:
      UserError: the file or its description is damaged.
    """
    try:
        text = _text(pathlib.Path(path))
        return None if text is None else json.loads(text)
    except _UNREADABLE as error:
        raise UserError(_DAMAGED.format(path=path, error=error)) from error


def _text(path):
    if path.is_dir():
        place = path / "assets" / MODEL_FILE
        return place.read_text("utf-8") if place.is_file() else None
    if path.suffix == ".onnx":
        return runtimes.onnx_metadata(path).get(MODEL_FILE)
    return _packed(path, MODEL_FILE)


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


def class_names(path: str | os.PathLike) -> tuple[str, ...] | None:
    """Reads the class names inside a .tflite or .onnx file.

    Returns:
      Element k - 1 names class k; numbers without class are named
      `unused_<number>`. None where the file has no names.

    Raises:
      UserError: not a model, or its list of names is damaged.
    """
    path, text = pathlib.Path(path), None
    try:
        if path.suffix.lower() == ".tflite":
            text = _packed(path, LABEL_MAP)
        elif path.suffix.lower() == ".onnx":
            text = runtimes.onnx_metadata(path).get("class_names")
    except _UNREADABLE as error:
        raise UserError(
            f"{path}: its {LABEL_MAP} cannot be read ({error}); name its "
            "classes by --labels"
        ) from error
    if not text:
        return None
    names = [line.strip() for line in text.rstrip().splitlines()]
    return tuple(
        f"unused_{number}" if name in _UNUSED else name
        for number, name in enumerate(names, start=1)
    )


def labels_beside(path: str | os.PathLike) -> pathlib.Path | None:
    """Returns the labels.txt in the folder of a file, where there is one."""
    labels = pathlib.Path(path).with_name(LABELS_FILE)
    return labels if labels.is_file() else None


def pack(content: bytes, texts: Mapping[str, str]) -> bytes:
    """Appends files to a model file, as a ZIP archive behind the model."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    return file.getvalue()


def _packed(path: pathlib.Path, name: str) -> str | None:
    """Returns a text that `pack` has appended; None where there is none."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if name not in archive.namelist():
            return None
        return archive.read(name).decode("utf-8-sig")
