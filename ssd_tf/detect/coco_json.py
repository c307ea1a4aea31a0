"""`detections.json`: COCO's format of results, written and read.

A list of objects with `image_id`, `category_id`, `bbox` (x, y, width, height in
pixels of the original image) and `score`; what COCO's server and every other
evaluator take.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssd_tf.command import UserError, files
from ssd_tf.evaluation.metrics.inputs import ImageResult

DETECTIONS_FILE = "detections.json"


class Found(NamedTuple):
    """One image's detections, boxes in pixels of the original."""

    boxes: np.ndarray  # float64 [K, 4], ymin, xmin, ymax, xmax
    scores: np.ndarray  # float64 [K]
    classes: np.ndarray  # int64 [K], 1-based


NOTHING = Found(np.empty((0, 4)), np.empty(0), np.empty(0, np.int64))


def write(
    path: str | os.PathLike,
    images: Iterable[ImageResult],
    category_ids: Sequence[int],
) -> None:
    """Writes the detections of images.

    Args:
      path: of the file.
      images: with their detections.
      category_ids: element k - 1 is the number that class k has in the file.
    """
    with files.replace_file(path) as temporary:
        with temporary.open("w", encoding="utf-8") as file:
            file.write("[")
            separator = "\n"
            for image in images:
                for row in _rows(image, category_ids):
                    file.write(separator + json.dumps(row))
                    separator = ",\n"
            file.write("\n]\n")


def _rows(image, category_ids):
    boxes, scores, classes = image.found
    for box, score, label in zip(
        boxes.tolist(), scores.tolist(), classes.tolist(), strict=True
    ):
        ymin, xmin, ymax, xmax = box
        yield {
            "image_id": _image_id(image.source_id),
            "category_id": category_ids[label - 1],
            "bbox": [
                round(x, 3) for x in (xmin, ymin, xmax - xmin, ymax - ymin)
            ],
            # All that float32 holds.
            "score": float(f"{score:.9g}"),
        }


def _image_id(source_id: str) -> int | str:
    """A number where the id is one, as in COCO's own files."""
    is_number = source_id.isdecimal() and str(int(source_id)) == source_id
    return int(source_id) if is_number else source_id


def read(
    path: str | os.PathLike, category_ids: Sequence[int]
) -> Mapping[str, Found]:
    """Detections by image id; ids are strings, whatever the file has.

    Args:
      path: of the file.
      category_ids: element k - 1 is the number that class k has in the file.

    Raises:
      UserError: not such a file, or a category that there is not.
    """
    try:
        rows = json.loads(pathlib.Path(path).read_text("utf-8"))
        if not isinstance(rows, list):
            raise ValueError("expected a list of detections")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    labels = {number: k for k, number in enumerate(category_ids, start=1)}
    by_image = {}
    for number, row in enumerate(rows):
        try:
            label = labels.get(row["category_id"])
            if not isinstance(row["bbox"], list):
                raise ValueError("bbox is no list")
            x, y, width, height = map(float, row["bbox"])
            entry = [y, x, y + height, x + width, float(row["score"])]
            if not np.isfinite(entry).all():
                raise ValueError("NaN or infinity")
            entry.append(label)
            by_image.setdefault(str(row["image_id"]), []).append(entry)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: detection {number} is none of COCO's format "
                f"(image_id, category_id, bbox of 4 numbers, score): {error!r}"
            ) from error
        if label is None:
            known = ", ".join(map(str, list(category_ids)[:10]))
            raise UserError(
                f"{path}: detection {number} has category "
                f"{row['category_id']!r}; the ground truth has {known}"
                f"{', ...' if len(category_ids) > 10 else ''}"
            )
    return {name: _found(entries) for name, entries in by_image.items()}


def _found(entries):
    table = np.array(entries, np.float64)
    return Found(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))
