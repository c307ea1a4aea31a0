"""Annotations of other tools' records: read once, before a run starts.

What would stop a run after hours is refused at once; what would silently do
nothing is counted. Our own conversion has checked all of that, see
`ssd_tf.datasets.annotation`.
"""

import pathlib
from collections.abc import Callable

import numpy as np

from ssd_tf.command import UserError, say
from ssd_tf.datasets import catalog, records

# So many images are named of each kind of useless box.
_MAX_NAMED = 3
NO_NUMBER = "not a number"


def open_split(
    dataset_dir: str | pathlib.Path,
    split: str,
    num_names: int,
    unreadable_shards: str = "fatal",
) -> tuple[Callable, int]:
    """Returns the `records.reader` of a split to train on, and its number of
    images.

    Args:
      dataset_dir, split, unreadable_shards: see `records.reader`.
      num_names: classes without the background.

    Raises:
      UserError: there is no image, or what `check_annotations` refuses.
    """
    num_images = records.count(dataset_dir, split, unreadable_shards)
    if not num_images:
        raise UserError(f"{dataset_dir}: no image in split {split!r}")
    check_annotations(dataset_dir, split, num_names, unreadable_shards)
    return records.reader(dataset_dir, split, unreadable_shards), num_images


def check_annotations(
    dataset_dir: str | pathlib.Path,
    split: str,
    num_names: int,
    unreadable_shards: str = "fatal",
) -> None:
    """Refuses a split that cannot be trained on or evaluated.

    Data with a manifest are our own and good; others are read once. Boxes
    that are inverted, of no area or outside the image match nothing: one line
    counts them and names images.

    Args:
      dataset_dir, split, unreadable_shards: see `records.reader`.
      num_names: classes without the background.

    Raises:
      UserError: no such split, a shard that cannot be read, a label outside
        1..num_names, or a box that is no number, with the name of its image.
    """
    if (pathlib.Path(dataset_dir) / catalog.MANIFEST).is_file():
        return
    data = records.read(
        dataset_dir, split, unreadable_shards=unreadable_shards
    ).map(lambda record: {k: v for k, v in record.items() if k != "image"})
    where, seen, useless = f"{dataset_dir}: {split}", 0, {}
    with records.explained_errors(dataset_dir, split):
        for record in data.as_numpy_iterator():
            source_id = record["source_id"].decode(errors="replace")
            image = f"{where}: image {source_id}"
            _check_labels(image, record["labels"], num_names)
            reasons = why_useless(record["boxes"])
            _check_numbers(image, record["boxes"], reasons)
            seen += len(reasons)
            for reason in filter(None, reasons):
                useless.setdefault(reason, []).append(source_id)
    if useless:
        say(f"{where}: {_in_words(useless, seen)}")


def _check_labels(image, labels, num_names):
    for label in labels:
        if not 1 <= label <= num_names:
            raise UserError(
                f"{image} has label {label}, but {catalog.LABELS} names 1 to "
                f"{num_names}"
            )


def _check_numbers(image, boxes, reasons):
    for box, reason in zip(boxes, reasons, strict=True):
        if reason == NO_NUMBER:
            sides = ", ".join(f"{side:g}" for side in box)
            raise UserError(
                f"{image} has a box that is {NO_NUMBER}: {sides} (ymin, xmin, "
                "ymax, xmax); mend it or leave the image out, and write the "
                "records again"
            )


def why_useless(boxes: np.ndarray) -> list[str]:
    """Returns why each of the boxes matches no anchor; "" where nothing is
    wrong.

    Args:
      boxes: float32 [M, 4], ymin, xmin, ymax, xmax in [0, 1].
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    faults = {
        NO_NUMBER: ~np.isfinite(boxes),
        "inverted": high < low,
        "of no area": high == low,
        "outside the image": (low >= 1) | (high <= 0),
    }
    found = [fault.any(axis=1) for fault in faults.values()]
    return np.select(found, list(faults), default="").tolist()


def _in_words(useless, seen):
    counts = []
    for reason, ids in useless.items():
        names = list(dict.fromkeys(ids))
        more = ", ..." if len(names) > _MAX_NAMED else ""
        named = ", ".join(names[:_MAX_NAMED]) + more
        counts.append(f"{len(ids)} {reason} (image {named})")
    number = sum(map(len, useless.values()))
    return f"{number} of {seen} boxes match nothing: {'; '.join(counts)}"
