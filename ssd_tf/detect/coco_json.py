"""`detections.json`: detections in COCO's results format, written and read.

A list of objects with `image_id`, `category_id`, `bbox` (x, y, width, height in
pixels of the original image) and `score`, as COCO's server and every other
evaluator take it. Read is also the per-image JSON of `ssd_tf.detect`.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssd_tf.command import UserError, files
from ssd_tf.detect.results import Detections

DETECTIONS_FILE = "detections.json"


class Stored(NamedTuple):
    """Detections of one image as a file has them."""

    boxes: np.ndarray  # float64 [K, 4], ymin, xmin, ymax, xmax
    scores: np.ndarray  # float64 [K]
    classes: np.ndarray  # int64 [K], 1-based
    in_pixels: bool  # boxes are pixels of the image, not shares of it


def write(
    path: str | os.PathLike,
    images: Iterable[tuple[str, Detections]],
    category_ids: Sequence[int],
) -> None:
    """Writes the detections of images.

    Args:
      path: the file.
      images: image ids and detections, with the sizes of the images.
      category_ids: element k - 1 is the number that class k has in the file.
    """
    with files.json_list(path) as write_row:
        for image_id, found in images:
            for row in _rows(_image_id(image_id), found, category_ids):
                write_row(row)


def _rows(image_id, found, category_ids):
    columns = found.pixel_boxes, found.scores, found.classes
    for box, score, label in zip(*(x.tolist() for x in columns), strict=True):
        ymin, xmin, ymax, xmax = box
        yield {
            "image_id": image_id,
            "category_id": category_ids[label - 1],
            "bbox": [
                round(x, 3) for x in (xmin, ymin, xmax - xmin, ymax - ymin)
            ],
            # All that float32 holds.
            "score": float(f"{score:.9g}"),
        }


def _image_id(source_id: str) -> int | str:
    """Returns a number where the id is one, as in COCO's own files."""
    is_number = source_id.isdecimal() and str(int(source_id)) == source_id
    return int(source_id) if is_number else source_id


def read(
    path: str | os.PathLike, category_ids: Sequence[int] | None = None
) -> dict[str, Stored]:
    """Reads detections by image id; ids are strings, whatever the file has.

    Args:
      path: the file.
      category_ids: element k - 1 is the number that class k has in the file
        [k].

    Raises:
      UserError: not such a file, or an unknown category.
    """
    content = _load(path)
    if isinstance(content, dict):
        return _read_by_image(path, content)
    labels = None
    if category_ids is not None:
        labels = {number: k for k, number in enumerate(category_ids, start=1)}
    by_image = {}
    for number, row in enumerate(content):
        try:
            entry = _entry(row, labels)
            by_image.setdefault(str(row["image_id"]), []).append(entry)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: detection {number} is none of COCO's format "
                f"(image_id, category_id, bbox of 4 numbers, score): {error!r}"
            ) from error
        if entry[-1] is None:
            known = ", ".join(map(str, list(labels)[:10]))
            raise UserError(
                f"{path}: detection {number} has category "
                f"{row['category_id']!r}; the ground truth has {known}"
                f"{', ...' if len(labels) > 10 else ''}"
            )
    return {name: _stored(entries, True) for name, entries in by_image.items()}


def _entry(row, labels):
    """Returns box, score and class of one detection; class None if unknown."""
    number = row["category_id"]
    label = int(number) if labels is None else labels.get(number)
    if not isinstance(row["bbox"], list):
        raise ValueError("bbox is no list")
    x, y, width, height = map(float, row["bbox"])
    entry = [y, x, y + height, x + width, float(row["score"])]
    if not np.isfinite(entry).all():
        raise ValueError("NaN or infinity")
    return [*entry, label]


def _read_by_image(path, content):
    """Reads the per-image JSON of `ssd_tf.detect`; boxes are shares."""
    try:
        return {
            pathlib.PurePath(image["file"]).stem: _stored(
                [
                    [*each["box"], each["score"], each["class"]]
                    for each in image["detections"]
                ],
                False,
            )
            for image in content["images"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: is no file of detections, neither COCO's results nor "
            f"those of ssd_tf.detect ({error!r})"
        ) from error


def _load(path: str | os.PathLike) -> Any:
    try:
        content = json.loads(pathlib.Path(path).read_text("utf-8"))
        if not isinstance(content, list) and "class_names" not in content:
            raise ValueError("expected a list of detections")
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    return content


def class_names(path: str | os.PathLike) -> tuple[str, ...] | None:
    """Returns the class names in a per-image JSON; None in COCO's results."""
    content = _load(path)
    return tuple(content["class_names"]) if isinstance(content, dict) else None


def _stored(entries, in_pixels):
    table = np.array(entries, np.float64).reshape(-1, 6)
    columns = table[:, :4], table[:, 4], table[:, 5].astype(np.int64)
    return Stored(*columns, in_pixels)


def shares(found: Stored | None, height: int, width: int) -> Detections:
    """Returns an image's detections with boxes as shares of the image.

    Args:
      found: as stored; None where the file has nothing of the image.
      height, width: size of the image, pixels.
    """
    if found is None:
        found = _stored([], True)
    size = np.array([height, width] * 2) if found.in_pixels else 1
    columns = found.boxes / size, found.scores, found.classes
    return Detections(*columns, image_size=(height, width))
