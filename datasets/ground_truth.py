"""Ground truth of an evaluation: records, a VOC tree, or COCO's JSON.

All three become the same stream of parsed records, see
`records.parse_example`, so that whoever evaluates need not ask.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from ssd_tf.command import UserError
from ssd_tf.datasets import (
    annotation,
    catalog,
    images,
    labels,
    record_check,
    records,
)
from ssd_tf.datasets.annotation import Annotation, Problem
from ssd_tf.datasets.convert import check as workers
from ssd_tf.datasets.formats import coco, voc
from ssd_tf.datasets.formats import voc as image_sets

_MAX_LISTED = 10  # class names in a message
_SIGNATURE = {
    "image": tf.TensorSpec([], tf.string),
    "boxes": tf.TensorSpec([None, 4], tf.float32),
    "labels": tf.TensorSpec([None], tf.int64),
    "difficult": tf.TensorSpec([None], tf.bool),
    "crowd": tf.TensorSpec([None], tf.bool),
    "area": tf.TensorSpec([None], tf.float32),
    "height": tf.TensorSpec([], tf.int64),
    "width": tf.TensorSpec([], tf.int64),
    "source_id": tf.TensorSpec([], tf.string),
}


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """A split to evaluate on.

    Attributes:
      kind: "records", "voc" or "coco".
      num_images: that `read` gives, but for those that turn out unreadable.
      class_names: element k - 1 names class k.
      category_ids: the number of each class in COCO's files.
      read: one pass, always in the same order, as parsed records, of all
        images or of `only` those with these ids; without `with_images`, VOC
        and COCO images are not read and need not be there.
      problems: fills up while a pass is read: what was skipped or dropped.
      source: names and checksums, for a report.
    """

    kind: str
    num_images: int
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    read: Callable[..., tf.data.Dataset]
    problems: dict[Any, Problem]
    source: dict[str, Any]


def open_split(
    dataset_dir: str | os.PathLike,
    split: str,
    unreadable_shards: str = "fatal",
    image_dir: str | os.PathLike | None = None,
    class_names: Sequence[str] | None = None,
) -> GroundTruth:
    """Opens a split, whatever it is kept in.

    Args:
      dataset_dir: a folder of the conversion or of another tool's records; a
        VOC tree; a COCO annotation file or the folder of its data set.
      split: name of the split.
      unreadable_shards: "fatal" or "skip", see `records.reader`.
      image_dir: of a COCO file's images, where they are not beside it.
      class_names: the detector's. Records have to have the same. Of a VOC tree
        or a COCO file boxes of other classes are dropped and named, and
        without class names all those there are count: a tree's by name, a
        file's by category id.

    Raises:
      UserError: nothing of the kind, or what cannot be evaluated on.
    """
    truth = _open(
        pathlib.Path(dataset_dir),
        split,
        unreadable_shards,
        image_dir,
        class_names,
    )
    if "mAP" in truth.class_names:
        raise UserError(
            f"{dataset_dir}: a class is called mAP, as the mean of all is; "
            "rename it"
        )
    return truth


def _open(path, split, unreadable_shards, image_dir, class_names):
    if path.is_file() or any(path.glob("annotations/*.json")):
        return _of_coco(path, split, image_dir, class_names)
    if (path / "Annotations").is_dir():
        return _of_voc(path, split, class_names)
    return _of_records(path, split, unreadable_shards, class_names)


def _of_records(path, split, unreadable_shards, class_names):
    names = tuple(catalog.class_names(path))
    if class_names and names != tuple(class_names):
        raise UserError(
            f"{path}: its classes are {_listed(names)}, those of the detector "
            f"{_listed(class_names)}; convert the data with --labels"
        )
    record_check.check_annotations(path, split, len(names), unreadable_shards)
    source = {"kind": "records", "dataset_dir": str(path), "split": split}
    manifest = path / catalog.MANIFEST
    if manifest.is_file():
        source["manifest_sha256"] = _sha256(manifest)

    def read(with_images=True, only=None):
        found = records.read(path, split, unreadable_shards=unreadable_shards)
        if only is None:
            return found
        wanted = tf.constant([*only], tf.string)
        return found.filter(
            lambda record: tf.reduce_any(record["source_id"] == wanted)
        )

    return GroundTruth(
        "records",
        records.count(path, split, unreadable_shards),
        names,
        tuple(range(1, len(names) + 1)),
        read,
        {},
        source,
    )


def _of_voc(path, split, class_names):
    items = list(voc.read([path], split, need_images=False))
    found = {name for item in _annotations(items) for name in item.names}
    names = tuple(class_names or sorted(found))
    if not found & {*names}:
        raise UserError(
            f"{path}: no object of a class of the detector "
            f"({_listed(names)}); there are {_listed(sorted(found))}"
        )
    source = {"kind": "voc", "dataset_dir": str(path), "split": split}
    lists = path / "ImageSets" / "Main" / f"{split}.txt"
    if split != image_sets.ALL and lists.is_file():
        source["manifest_sha256"] = _sha256(lists)
    ids = tuple(range(1, len(names) + 1))
    return _of_annotations("voc", items, names, ids, source)


def _of_coco(path, split, image_dir, class_names):
    file = coco.find(path, split)
    names, ids = coco.categories(file)
    if class_names:
        by_name = dict(zip(names, ids, strict=True))
        # A label map's numbers that no class has; nor has the file.
        missing = [
            name
            for name in class_names
            if name not in by_name and not name.startswith(labels.UNUSED)
        ]
        if missing:
            raise UserError(
                f"{file}: has no category {missing[0]!r}, which the detector "
                f"knows; there are {_listed(names)}"
            )
        names = tuple(class_names)
        ids = tuple(by_name.get(name, -k) for k, name in enumerate(names, 1))
    items = list(coco.read([file], split, image_dir))
    source = {
        "kind": "coco",
        "dataset_dir": str(file),
        "split": file.stem,
        "manifest_sha256": _sha256(file),
    }
    return _of_annotations("coco", items, names, ids, source)


def _listed(names):
    """Returns names for a message, not all of many."""
    more = ", ..." if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more or "none"


def _annotations(items):
    return [item for item in items if isinstance(item, Annotation)]


def _sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _of_annotations(kind, items, names, ids, source):
    annotations = _annotations(items)
    if not annotations:
        raise UserError(
            f"{source['dataset_dir']}: no image in split {source['split']!r}"
        )
    problems = {}
    _note(problems, (item for item in items if isinstance(item, Problem)))

    def read(with_images=True, only=None):
        check = workers.check if with_images else _without_image

        def generate() -> Iterator[dict[str, Any]]:
            for item in annotations:
                if only is None or item.source_id in only:
                    checked, found = check(item, names)
                    _note(problems, found)
                    if checked is not None:
                        yield _as_record(checked, names)

        return tf.data.Dataset.from_generator(
            generate, output_signature=_SIGNATURE
        )

    return GroundTruth(
        kind,
        len(annotations),
        names,
        ids,
        read,
        problems,
        source,
    )


def _note(problems, found):
    """Adds problems, each once however often its image is read."""
    problems.update(((x.file, x.kind, x.box), x) for x in found)


def _without_image(item: Annotation, names: Sequence[str]) -> workers.Outcome:
    """`workers.check` by the stated size alone."""
    try:
        height, width = (
            (item.height, item.width)
            if item.height and item.width
            else images.upright_size(item.image_path)
        )
    except (OSError, images.UnreadableImageError) as error:
        problem = Problem(item.origin, "no_size", "skipped", str(error))
        return None, [problem]
    cleaned, problems = annotation.clean(item, names, height, width)
    return dataclasses.replace(cleaned, image_bytes=b""), problems


def _as_record(item: Annotation, names: Sequence[str]) -> dict[str, Any]:
    return {
        "image": item.image_bytes,
        "boxes": item.boxes,
        "labels": [names.index(name) + 1 for name in item.names],
        "difficult": item.difficult,
        "crowd": item.crowd,
        "area": item.areas,
        "height": item.height,
        "width": item.width,
        "source_id": item.source_id,
    }
