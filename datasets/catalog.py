"""The files of a folder of converted data: shards, class names, manifest.

    train-00000-of-00002.tfrecord ...   the records
    labels.txt, label_map.pbtxt         the class names
    manifest.json                       what was converted and what was mended

Folders of other tools, with records and class names alone, are understood
too. Nothing here knows what is in a record; TensorFlow is not imported.
"""

import dataclasses
import fnmatch
import json
import pathlib
import re

from ssd_tf.command import UserError
from ssd_tf.datasets import labels

MANIFEST = "manifest.json"
LABELS = "labels.txt"
LABEL_MAP = "label_map.pbtxt"

_SUFFIX = r"(\.tf_?records?|\.record)"
# `train-00000-of-00004.tfrecord`; other tools write no suffix, or write it
# before the number, or leave a split in one file.
_SHARD = re.compile(
    rf"(?P<split>.+?){_SUFFIX}?-\d{{5}}-of-(?P<count>\d{{5}}){_SUFFIX}?"
    rf"|(?P<single>.+){_SUFFIX}"
)


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of a split, and what the manifest states of it."""

    path: pathlib.Path
    images: int | None = None  # None: not stated
    size: int | None = None  # bytes


def shard_names(split: str, count: int) -> list[str]:
    """Returns file names of the shards of a split, in order."""
    return [
        f"{split}-{index:05d}-of-{count:05d}.tfrecord" for index in range(count)
    ]


def is_shard_of(name: str, split: str) -> bool:
    """Returns whether `shard_names` gives this file name for the split."""
    pattern = re.escape(split) + r"-\d{5}-of-\d{5}\.tfrecord"
    return re.fullmatch(pattern, name) is not None


def read_manifest(dataset_dir: str | pathlib.Path) -> dict:
    """Reads `manifest.json` of a conversion.

    Raises:
      UserError: there is none, or it is not one of ours.
    """
    path = pathlib.Path(dataset_dir) / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: is not there; make it with "
            "python -m ssd_tf.datasets.convert"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); convert again"
        ) from error
    if not isinstance(manifest, dict) or "splits" not in manifest:
        raise UserError(f"{path}: is not from a conversion; convert again")
    return manifest


def class_names(dataset_dir: str | pathlib.Path) -> list[str]:
    """Class names of a data set: element k - 1 names class k.

    Raises:
      UserError: no such folder, or neither `labels.txt` nor
        `label_map.pbtxt` in it.
    """
    _check_folder(dataset_dir)
    for name in (LABELS, LABEL_MAP):
        path = pathlib.Path(dataset_dir) / name
        if path.is_file():
            return labels.read(path)
    raise UserError(
        f"{dataset_dir}: neither {LABELS} nor {LABEL_MAP} is there; write "
        f"the class names into {LABELS}, one per line, class 1 first"
    )


def list_shards(dataset_dir: str | pathlib.Path, split: str) -> list[Shard]:
    """Returns the files of a split, in order; `ssd_tf.datasets.shards` checks
    them.

    Args:
      dataset_dir: a folder with converted data, ours or another tool's.
      split: name of a split; or a file name or pattern in that folder
        (`voc_2007_train_*.tfrecord`).

    Raises:
      UserError: there is no such folder or split, or fewer files than their
        names count.
    """
    folder = pathlib.Path(dataset_dir)
    _check_folder(folder)
    if (folder / MANIFEST).is_file():
        stated = read_manifest(folder)["splits"]
        if split in stated:
            return [
                Shard(folder / entry["name"], entry["images"], entry["size"])
                for entry in stated[split]["shards"]
            ]
    found = _group_by_split(folder)
    shards = found.get(split) or [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and fnmatch.fnmatch(path.name, split)
    ]
    if not shards:
        known = ", ".join(sorted(found)) or "none"
        raise UserError(f"{folder}: no split {split!r}; splits there: {known}")
    return [Shard(path) for path in _complete(shards)]


def _check_folder(folder):
    if not pathlib.Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; see --dataset_dir")


def _group_by_split(folder):
    splits = {}
    for path in sorted(folder.iterdir()):
        match = _SHARD.fullmatch(path.name)
        if match and path.is_file() and not path.name.startswith("."):
            split = match["split"] or match["single"]
            splits.setdefault(split, []).append(path)
    return splits


def _complete(shards):
    match = _SHARD.fullmatch(shards[0].name)
    if match and match["count"] and int(match["count"]) != len(shards):
        raise UserError(
            f"{shards[0]}: {len(shards)} of {match['count']} shards are "
            "there; copy or convert the split again"
        )
    return shards
