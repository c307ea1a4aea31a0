"""`ImageSets/Main` of a VOC tree: which images make up which split.

Nothing here knows what is in an annotation.
"""

import pathlib
import re

from ssd_tf.command import UserError

ALL = "all"  # the one split of a tree without image sets
# `2008_000008 -1`: a per-class list says behind the name whether it is there.
_CLASS_COLUMN = re.compile(r"\s+(-1|0|1)$")


def splits(root: pathlib.Path) -> list[str]:
    """Names of the splits of one tree, without per-class lists.

    Raises:
      UserError: `root` is no VOC tree.
    """
    _check_root(root)
    lists = sorted((root / "ImageSets" / "Main").glob("*.txt"))
    if not lists:
        return [ALL]
    return [path.stem for path in lists if not _is_class_list(root, path)]


def has(root: pathlib.Path, split: str) -> bool:
    """Whether the tree has the split; a per-class list is one too."""
    return _path(root, split).is_file() or split in splits(root)


def image_names(root: pathlib.Path, split: str) -> list[str]:
    """Names of the split's images, without suffix, in the list's order."""
    path = _path(root, split)
    if not path.is_file():
        return sorted(xml.stem for xml in root.glob("Annotations/*.xml"))
    return [_name(root, line) for line in _lines(path)]


def _path(root, split):
    return root / "ImageSets" / "Main" / f"{split}.txt"


def _check_root(root):
    if (root / "Annotations").is_dir():
        return
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; see --dataset_dir")
    inside = sorted(path.parent for path in root.glob("*/Annotations"))
    hint = f"; did you mean {inside[0]}?" if inside else ""
    raise UserError(
        f"{root}: no folder Annotations in it; a VOC tree has Annotations, "
        f"JPEGImages and ImageSets/Main{hint}"
    )


def _lines(path):
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _name(root, line):
    # `cat 1` may be an image's name too.
    if (root / "Annotations" / f"{line}.xml").is_file():
        return line
    return _CLASS_COLUMN.sub("", line)


def _is_class_list(root, path):
    lines = _lines(path)
    return bool(lines) and all(_name(root, line) != line for line in lines)
