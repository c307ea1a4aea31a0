"""COCO's annotation files: one JSON file of images, categories, annotations.

A root is such a file, or a folder with `annotations/instances_SPLIT.json`
(any name that ends with the split will do). Images are looked for where COCO
and the tools that write its format put them: SPLIT/, images/SPLIT/, images/,
JPEGImages/ or beside the file, of the root or of the file's folders; SPLIT is
also what the file's own name says, instances_SPLIT.json. Boxes there are x, y,
width, height in pixels, counted from 0; category ids may have gaps.
"""

import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssd_tf.command import UserError
from ssd_tf.datasets.annotation import Annotation, Problem

# Of COCO's files of a split, keypoints and captions among them, the boxes'.
_PREFIX = "instances_"
_TABLES = ("images", "categories", "annotations")


class Categories(NamedTuple):
    """The classes of a file, by rising category id."""

    names: tuple[str, ...]
    ids: tuple[int, ...]


def splits(roots: Sequence[pathlib.Path]) -> list[str]:
    """Returns names of the splits of all roots, sorted; a file is one, by its
    name.

    Raises:
      UserError: a root has no annotation file.
    """
    return sorted({path.stem for root in roots for path in _files(root)})


def _files(root):
    root = pathlib.Path(root)
    if root.is_file():
        return [root]
    found = sorted(root.glob("annotations/*.json"))
    if not found:
        raise UserError(
            f"{root}: no annotations/*.json in it; name such a file or its "
            "data set's folder"
        )
    return found


def find(root: str | os.PathLike, split: str) -> pathlib.Path:
    """Returns the annotation file of a split; a root that is a file is its own.

    Raises:
      UserError: there is none, or several would do.
    """
    paths = _files(root)
    if pathlib.Path(root).is_file():
        return paths[0]
    named = {path.stem: path for path in paths}
    for name in (split, f"{_PREFIX}{split}"):
        if name in named:
            return named[name]
    fitting = [
        path
        for path in paths
        if path.stem.endswith(f"_{split}") and "caption" not in path.stem
    ]
    if len(fitting) != 1:
        known = ", ".join(path.name for path in paths)
        raise UserError(
            f"{root}/annotations: {len(fitting)} files for split {split!r}; "
            f"there are {known}; name the file itself"
        )
    return fitting[0]


def categories(path: str | os.PathLike) -> Categories:
    """Returns the classes of an annotation file.

    Raises:
      UserError: not such a file.
    """
    return _categories(_load(pathlib.Path(path)), path)


def _categories(content, path):
    try:
        rows = sorted(
            (int(row["id"]), str(row["name"])) for row in content["categories"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: a category without id or name ({error})"
        ) from error
    ids = tuple(number for number, _ in rows)
    names = tuple(name for _, name in rows)
    for what, values in (("id", ids), ("name", names)):
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise UserError(
                f"{path}: two categories have the {what} {twice[0]!r}"
            )
    return Categories(names, ids)


def _load(path: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    tables = content if isinstance(content, dict) else {}
    missing = [x for x in _TABLES if not isinstance(tables.get(x), list)]
    if missing:
        raise UserError(
            f"{path}: has no list {missing[0]!r}, so it is no annotation file "
            "of COCO's format"
        )
    return tables


def read(
    roots: Sequence[str | os.PathLike],
    split: str,
    image_dir: str | os.PathLike | None = None,
) -> Iterator[Annotation | Problem]:
    """Reads one split.

    Args:
      roots: annotation files, or folders with them.
      split: name of the split.
      image_dir: where the images are; found by the rules above by default.

    Yields:
      Annotations by rising image id, COCO's own order, with the image's id as
      `source_id`; an image path need not exist. Boxes are not yet validated.

    Raises:
      UserError: a file that is none, or an annotation of no image or
        category.
    """
    for root in roots:
        path = find(root, split)
        content = _load(path)
        names = dict(zip(*_categories(content, path)[::-1], strict=True))
        rows = _rows_by_image(content, path, names)
        for image in sorted(content["images"], key=_by_id):
            image_path = _image_path(path, split, image, image_dir)
            of_image = rows[str(image["id"])]
            yield _annotation(path, image, of_image, names, image_path)


def _by_id(image):
    """Orders numbers before text; tools mix them."""
    number = image["id"]
    is_text = isinstance(number, str)
    return is_text, 0 if is_text else number, str(number)


def _rows_by_image(content, path, names):
    try:
        _check_ids(content["images"], path)
        # An id is the same as a number and as text.
        rows = {str(image["id"]): [] for image in content["images"]}
        if len(rows) < len(content["images"]):
            raise UserError(f"{path}: two images have one id")
        for row in content["annotations"]:
            if row["category_id"] not in names:
                raise UserError(
                    f"{path}: annotation {row.get('id')} has category "
                    f"{row['category_id']}, which is not listed"
                )
            rows[str(row["image_id"])].append(row)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: an annotation of no image, or without its fields "
            f"({error})"
        ) from error
    return rows


def _check_ids(rows, path):
    for row in rows:
        if not isinstance(row["id"], int | float | str):
            raise UserError(
                f"{path}: image id {row['id']!r}; expected a number or text"
            )


def _annotation(path, image, rows, names, image_path):
    try:
        size = image["height"], image["width"]
        if not all(side > 0 for side in size):
            raise ValueError(f"height and width are {size[0]} and {size[1]}")
        boxes = np.array([row["bbox"] for row in rows], np.float64)
        x, y, width, height = boxes.reshape(-1, 4).T
        corners = np.stack([y, x, y + height, x + width], axis=-1)
        return Annotation(
            source_id=str(image["id"]),
            origin=f"{path}: image {image['id']}",
            height=size[0],
            width=size[1],
            boxes=corners / np.array(size * 2, np.float64),
            names=tuple(names[row["category_id"]] for row in rows),
            crowd=[_flag(row, "iscrowd") for row in rows],
            difficult=[_flag(row, "difficult") for row in rows],
            areas=[row.get("area", 0) for row in rows],
            image_path=image_path,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: image {image.get('id')}: a field is missing or is not "
            f"what it has to be ({error})"
        ) from error


def _flag(row, field):
    """Returns 0 or 1 as a number; the text "0" would be true."""
    value = row.get(field, 0)
    if value not in (0, 1):
        raise ValueError(f"{field} is {value!r}, expected 0 or 1")
    return bool(value)


def _image_path(path, split, image, image_dir):
    """Returns the path of an image; where it should be, if it is missing."""
    # Whoever does not read images needs no names of files.
    name = str(image.get("file_name", f"image {image['id']} has no file_name"))
    own = path.stem.removeprefix(_PREFIX)
    places = [
        base / folder / name
        for base in (path.parent.parent, path.parent)
        for part in dict.fromkeys([own, split])
        for folder in (part, f"images/{part}", "images", "JPEGImages", ".")
    ]
    if image_dir:
        places = [pathlib.Path(image_dir) / name]
    return next((place for place in places if place.is_file()), places[0])
