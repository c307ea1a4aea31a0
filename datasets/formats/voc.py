"""PASCAL VOC trees: `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/`.

Pixels in VOC files count from 1 and include both corners: an object that
fills an image of width w has xmin 1 and xmax w. Hence x runs from
(xmin - 1) / w to xmax / w. Many tools write such files counting from 0, with
xmax just outside the object; a coordinate below 1 gives them away, and that
file is then read as xmin / w to xmax / w. This is decided file by file: the
reading of a file never depends on its neighbours, and a wrong guess costs one
pixel. Where both corners of an axis are equal the box is read as having no
extent: every tool but VOC's own means that, and `annotation.clean` names it.

XML comes from anywhere, so it is parsed by defusedxml.
"""

import html
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from defusedxml import DefusedXmlException, ElementTree

from ssd_tf.command import UserError, files
from ssd_tf.datasets import images
from ssd_tf.datasets.annotation import Annotation, Problem

_CORNERS = ("ymin", "xmin", "ymax", "xmax")


def splits(roots: Sequence[pathlib.Path]) -> list[str]:
    """Lists the splits of all roots, without per-class lists; sorted.

    Raises:
      UserError: a root is no VOC tree.
    """
    return sorted({name for root in roots for name in tree_splits(root)})


def read(
    roots: Sequence[pathlib.Path], split: str, need_images: bool = True
) -> Iterator[Annotation | Problem]:
    """Reads one split of a VOC tree, or of the union of several.

    Args:
      roots: folders with `Annotations` and `JPEGImages`; those that lack the
        split are passed over (VOC2012 has no `test`).
      split: name of a file in `ImageSets/Main`; "all" without that folder.
      need_images: without, an annotation that states its image's size stands
        also where the image is missing; its path is where it should be.

    Yields:
      Annotations in the order of the roots and their lists, and problems
      where there is something to say of one, or instead of it. Boxes are not
      yet validated: corners that are missing or no numbers are NaN.

    Raises:
      UserError: a root is no VOC tree, or no root has the split.
    """
    known = splits(roots)
    if not any(has(root, split) for root in roots):
        raise UserError(
            f"{', '.join(map(str, roots))}: no split {split!r}; there are "
            f"{', '.join(known)}"
        )
    taken = set()
    for root in roots:
        if has(root, split):
            yield from _read_root(root, split, taken, need_images)
            taken.update(image_names(root, split))
        else:
            yield Problem(
                str(root), "split_not_here", "mended", f"no {split!r} in it"
            )


def _read_root(root, split, taken, need_images):
    """Yields one root of a union; `taken` are the names that earlier ones
    used.
    """
    image_files = images.index(root / "JPEGImages")
    seen = set()
    for name in image_names(root, split):
        path = _xml_path(root, name)
        if name in seen:
            yield _skipped(path, "listed_twice", f"in split {split!r}")
            continue
        seen.add(name)
        source_id = name
        if name in taken:
            # 2007/VOC and 2012/VOC are told apart as well.
            source_id = f"{root.parent.name}_{root.name}_{name}"
            yield Problem(str(path), "renamed", "mended", source_id)
        yield from _read_one(path, source_id, image_files, need_images)


def _xml_path(root, name):
    return root / "Annotations" / f"{name}.xml"


def _skipped(path, kind, detail):
    return Problem(str(path), kind, "skipped", detail)


def _read_one(path, source_id, image_files, need_images):
    """Yields the annotation of one file, or what is wrong with the file."""
    if not path.is_file():
        yield _skipped(path, "missing_xml", "the split names it")
        return
    try:
        tree = _parse(path)
        size = _size(tree)
        image_path = _image_path(
            path, tree, image_files, need_images or not size
        )
        size = size or images.upright_size(image_path)
    except _MalformedXMLError as error:
        yield _skipped(path, "malformed_xml", str(error))
        return
    except FileNotFoundError as error:
        yield _skipped(path, "missing_image", str(error))
        return
    except images.UnreadableImageError as error:
        yield _skipped(image_path, "unreadable_image", str(error))
        return
    objects = tree.findall("object")
    corners = _corners(objects)
    if _counts_from_zero(corners):
        yield Problem(
            str(path),
            "zero_based",
            "mended",
            f"least is {np.nanmin(corners):g}",
        )
    yield Annotation(
        source_id=source_id,
        origin=str(path),
        height=size[0],
        width=size[1],
        boxes=_boxes(corners, *size),
        names=tuple(_text(item, "name") for item in objects),
        difficult=[_flag(item, "difficult") for item in objects],
        truncated=[_flag(item, "truncated") for item in objects],
        poses=[_text(item, "pose") or "Unspecified" for item in objects],
        image_path=image_path,
    )


def _image_path(path, tree, image_files, must_be_there):
    # Some tools state a whole path, of Windows even.
    stated = pathlib.PureWindowsPath(_text(tree, "filename")).name
    try:
        return images.find(image_files, path.stem, stated)
    except FileNotFoundError:
        if must_be_there:
            raise
    folder = path.parent.parent / "JPEGImages"
    return folder / (stated or f"{path.stem}.jpg")


class _MalformedXMLError(Exception):
    pass


def _parse(path):
    try:
        tree = ElementTree.parse(path).getroot()
    except (
        ElementTree.ParseError,
        DefusedXmlException,
        LookupError,  # an encoding that Python does not know
        OSError,
        ValueError,
    ) as error:
        raise _MalformedXMLError(str(error)) from error
    if tree.tag != "annotation":
        raise _MalformedXMLError(f"<{tree.tag}> is no annotation")
    return tree


def _text(element, path):
    return (element.findtext(path) or "").strip()


def _number(element, path):
    try:
        return float(_text(element, path))
    except ValueError:
        return float("nan")


def _flag(element, path):
    # An Element without children is false: its text has to be asked.
    return _text(element, path).lower() in {"1", "true", "yes"}


def _size(tree):
    size = [_number(tree, f"size/{side}") for side in ("height", "width")]
    if not all(np.isfinite(side) and side >= 1 for side in size):
        return None  # absent, or 0 as some tools write
    return int(size[0]), int(size[1])


def _corners(objects):
    """Returns pixels as they are written, float64 [n, 4]."""
    rows = [
        [_number(item, f"bndbox/{name}") for name in _CORNERS]
        for item in objects
    ]
    return np.array(rows, np.float64).reshape(-1, 4)


def _counts_from_zero(corners):
    return bool((corners[:, :2] < 1).any())


def _boxes(corners, height, width):
    """Returns float32 [n, 4]; see the module's docstring for the two
    countings.
    """
    low, high = corners[:, :2], corners[:, 2:]
    no_extent = low == high
    if not _counts_from_zero(corners):
        low = np.where(no_extent, low, low - 1)
    scale = np.array([height, width] * 2, np.float64)
    return (np.hstack([low, high]) / scale).astype(np.float32)


def write(
    root: str | pathlib.Path, split: str, annotations: Iterable[Annotation]
) -> None:
    """Writes a split of a VOC tree, the inverse of `read`.

    What is read back equals what was written, but for `crowd`, which VOC
    cannot say, and boxes just one pixel thin (see the module's docstring).

    Args:
      root: the tree; made if it is not there, added to if it is.
      split: name of the list in `ImageSets/Main`.
      annotations: with boxes inside the image; `source_id` becomes the name
        of the files.

    Raises:
      ValueError: a `source_id` is no file name, or the size is not given.
    """
    root = pathlib.Path(root)
    names = []
    for annotation in annotations:
        name = annotation.source_id
        if pathlib.PurePath(name).name != name or not annotation.height:
            raise ValueError(
                f"{annotation.origin}: expected a size and a plain file name "
                f"as source_id; received {name!r}, {annotation.height} x "
                f"{annotation.width}"
            )
        data = annotation.read_image()
        image_name = name + images.suffix(data)
        with files.replace_file(root / "JPEGImages" / image_name) as path:
            path.write_bytes(data)
        files.write_text(_xml_path(root, name), _to_xml(annotation, image_name))
        names.append(name)
    lines = "".join(f"{name}\n" for name in names)
    files.write_text(root / "ImageSets" / "Main" / f"{split}.txt", lines)


def _to_xml(annotation, image_name):
    objects = "".join(
        _object_xml(annotation, index) for index in range(len(annotation.names))
    )
    return (
        "<annotation>\n"
        "\t<folder>JPEGImages</folder>\n"
        f"\t<filename>{html.escape(image_name)}</filename>\n"
        f"\t<size>\n\t\t<width>{annotation.width}</width>\n"
        f"\t\t<height>{annotation.height}</height>\n"
        "\t\t<depth>3</depth>\n\t</size>\n"
        f"\t<segmented>0</segmented>\n{objects}</annotation>\n"
    )


def _object_xml(annotation, index):
    size = (annotation.height, annotation.width) * 2
    box = map(_pixel, annotation.boxes[index], size, (1, 1, 0, 0))
    corners = "".join(
        f"\t\t\t<{corner}>{pixel}</{corner}>\n"
        for corner, pixel in zip(_CORNERS, box, strict=True)
    )
    return (
        f"\t<object>\n\t\t<name>{html.escape(annotation.names[index])}</name>\n"
        f"\t\t<pose>{html.escape(annotation.poses[index])}</pose>\n"
        f"\t\t<truncated>{annotation.truncated[index]:d}</truncated>\n"
        f"\t\t<difficult>{annotation.difficult[index]:d}</difficult>\n"
        f"\t\t<bndbox>\n{corners}\t\t</bndbox>\n\t</object>\n"
    )


def _pixel(coordinate, size, first):
    """Returns a whole number wherever reading it gives the coordinate back."""
    exact = float(coordinate) * size
    whole = round(exact)
    if np.float32(whole / size) == coordinate:
        return whole + first
    return exact + first


ALL = "all"  # the one split of a tree without image sets
# `2008_000008 -1`: a per-class list says behind the name whether it is there.
_CLASS_COLUMN = re.compile(r"\s+(-1|0|1)$")


def tree_splits(root: pathlib.Path) -> list[str]:
    """Lists the splits of one tree, without per-class lists.

    Raises:
      UserError: `root` is no VOC tree.
    """
    _check_root(root)
    lists = sorted((root / "ImageSets" / "Main").glob("*.txt"))
    if not lists:
        return [ALL]
    return [path.stem for path in lists if not _is_class_list(root, path)]


def has(root: pathlib.Path, split: str) -> bool:
    """Returns whether the tree has the split or per-class list."""
    return _path(root, split).is_file() or split in tree_splits(root)


def image_names(root: pathlib.Path, split: str) -> list[str]:
    """Returns names of the split's images, without suffix, in the list's
    order.
    """
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
