"""What model.json tells of an exported model, read back.

`exporting.description` writes it: into a SavedModel's assets, into the
metadata of an ONNX file, and beside TFLite and ONNX files.
"""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from ssd_tf import anchors, boxes, runtimes, serving
from ssd_tf.command import UserError


class Described(NamedTuple):
    """An exported model as far as an evaluation asks."""

    input_size: tuple[int, int]  # height, width, pixels
    anchors: np.ndarray  # float32 [A, 4], corners
    detection: dict[str, Any]  # the options of its detections
    source: dict[str, Any]  # the net and the checkpoint that it was made from


def read(path: pathlib.Path) -> Described | None:
    """What is said of a SavedModel's folder, a .tflite or an .onnx file.

    Returns:
      None where nothing is said: it is another tool's.

    Raises:
      UserError: the description is damaged.
    """
    name = pathlib.Path(serving.MODEL_FILE).name
    place, text = path.with_name(name), None
    if path.is_dir():
        place = path / serving.MODEL_FILE
    elif path.suffix == ".onnx":
        text = runtimes.onnx_metadata(path).get(name)
    try:
        if text is None and place.is_file():
            text = place.read_text("utf-8")
        return _described(json.loads(text)) if text else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{place}: does not describe a model ({error!r}); export it "
            "again, or take the file away"
        ) from error


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
