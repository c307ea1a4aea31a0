"""The conversion of an annotated data set into TFRecord shards.

The library call under `python -m ssd_tf.datasets.convert` and `ssd_tf.convert`.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from ssd_tf.command import UserError
from ssd_tf.command.settings import build, setting
from ssd_tf.datasets import catalog, labels
from ssd_tf.datasets.annotation import Annotation
from ssd_tf.datasets.convert import publish
from ssd_tf.datasets.convert.split import IMAGES_PER_SHARD, convert_split
from ssd_tf.datasets.formats import shapes, voc

FORMAT_VERSION = 1

# Format -> module with `splits(roots)` and `read(roots, split)`.
_READERS = {"voc": voc}
_BUILT_IN_LABELS = {"voc": labels.VOC_LABELS, "coco": labels.COCO_LABELS}

_input = functools.partial(setting, section="input")
_output = functools.partial(setting, section="output")
_shapes = functools.partial(setting, section="shapes")


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """Everything that the command and `ssd_tf.convert` take."""

    format: str = _input(
        "voc",
        "Format of the annotations; shapes makes the built-in data set.",
        choices=(*_READERS, "shapes"),
    )
    dataset_dir: tuple[str, ...] = _input(
        (),
        "Folder of the data set, or several, separated by commas, of which the "
        "union is taken. With --format=shapes: folder for the pictures "
        "[OUTPUT_DIR/raw].",
    )
    splits: tuple[str, ...] = _input((), "Splits to convert [all].")
    labels: str | None = _input(
        None,
        "File of class names, class 1 first (labels.txt or a .pbtxt label "
        "map), or `voc` or `coco` for their known lists; boxes of other "
        "classes are dropped and named [the names found in the data, sorted].",
    )
    on_error: str = _input(
        "skip",
        "Skip bad input, name it in manifest.json and go on, or fail at the "
        "first.",
        choices=("skip", "fail"),
    )
    output_dir: str | None = _output(None, "Folder for the shards.")
    num_shards: int | None = _output(
        None, f"Shards per split [one per {IMAGES_PER_SHARD} images].", low=1
    )
    num_workers: int | None = _output(
        None, "Number of processes [one per processor].", low=1
    )
    shapes_train: int = _shapes(1200, "Number of training images.")
    shapes_test: int = _shapes(300, "Number of test images.")
    seed: int = _shapes(0, "Seed of the pictures.")


def convert(
    dataset_dir: str | os.PathLike | Sequence[str | os.PathLike],
    output_dir: str | os.PathLike,
    **settings: Any,
) -> dict[str, Any]:
    """Converts splits of a data set; their shards appear all at once.

    That is, by renames in one go when all are complete; only a kill within
    these few milliseconds leaves new shards under an older manifest.

    Splits that the folder has from earlier keep their shards, if the class
    names are the same; splits converted again are replaced.

    Args:
      dataset_dir: folder of the data set, or several, whose union is taken.
      output_dir: folder for the shards; made if it is missing.
      **settings: those of `python -m ssd_tf.datasets.convert`, such as
        `splits=["train", "test"]`, `labels="voc"`.

    Returns:
      The content of manifest.json.

    Raises:
      UserError: a setting is invalid, there is nothing to convert, class names
        do not fit, or with `on_error="fail"` the first bad input.
    """
    is_one = isinstance(dataset_dir, str | os.PathLike)
    roots = [dataset_dir] if is_one else dataset_dir
    values = {
        "dataset_dir": [os.fspath(root) for root in roots],
        "output_dir": output_dir,
    }
    return run(build(ConvertOptions, values | settings))


def run(options: ConvertOptions) -> dict[str, Any]:
    """Converts what the options say; see `convert`."""
    output_dir = pathlib.Path(options.output_dir)
    # Find the data set; draw it if it is the built-in one.
    if options.format == "shapes":
        reader, roots = voc, [_write_shapes(options)]
    else:
        reader = _READERS[options.format]
        roots = [pathlib.Path(folder) for folder in options.dataset_dir]
    if not roots:
        raise UserError("--dataset_dir is missing: the folder to convert")
    publish.remove_stale(output_dir)
    # Read all annotations, and choose the class names.
    found = {
        split: _read_split(reader, roots, split)
        for split in options.splits or reader.splits(roots)
    }
    manifest = _earlier_manifest(output_dir, without=found)
    manifest["classes"] = _choose_class_names(
        found, _read_class_names(options.labels), manifest
    )
    # Write the shards of each split into a hidden folder, then publish all.
    kind = "voc" if options.format == "shapes" else options.format
    source = {"format": kind, "dataset_dir": list(map(str, roots))}
    with publish.staging(output_dir) as folder:
        for split, items in found.items():
            manifest["splits"][split] = {"source": source} | convert_split(
                split,
                items,
                folder,
                manifest["classes"],
                options.num_shards,
                options.num_workers,
                options.on_error,
            )
        publish.publish(folder, output_dir, manifest, found)
    return manifest


def _write_shapes(options):
    """Draws the built-in data set; returns its folder."""
    folders = options.dataset_dir
    if len(folders) > 1:
        raise UserError(
            f"--dataset_dir={','.join(folders)}: shapes are put into one folder"
        )
    tree = folders[0] if folders else os.path.join(options.output_dir, "raw")
    try:
        return shapes.write_dataset(
            tree, options.shapes_train, options.shapes_test, seed=options.seed
        )
    except OSError as error:
        raise UserError(f"{tree}: cannot be written: {error}") from error


def _read_class_names(text):
    if text is None:
        return None
    return _BUILT_IN_LABELS.get(text) or labels.read(text)


def _read_split(reader, roots, split):
    items = list(reader.read(roots, split))
    if not any(isinstance(item, Annotation) for item in items):
        first = f" {items[0]}" if items else ""
        raise UserError(
            f"{', '.join(map(str, roots))}: split {split!r} has no annotated "
            f"image.{first}"
        )
    return items


def _earlier_manifest(output_dir, without):
    """Returns the manifest without the splits that are to be converted."""
    if not (output_dir / catalog.MANIFEST).is_file():
        return {"format_version": FORMAT_VERSION, "classes": [], "splits": {}}
    manifest = catalog.read_manifest(output_dir)
    kept = {
        split: entry
        for split, entry in manifest["splits"].items()
        if split not in without
    }
    return manifest | {"splits": kept}


def _choose_class_names(found, given, earlier):
    """Returns the names asked for, or those of earlier splits, or all there
    are."""
    present = {
        name
        for items in found.values()
        for item in items
        if isinstance(item, Annotation)
        for name in item.names
        if name
    }
    if given:
        names = labels.check(given, "--labels")
    elif earlier["splits"] and present <= set(earlier["classes"]):
        return earlier["classes"]
    else:
        names = sorted(present)
    if not names:
        raise UserError(
            "no object in the whole data set, so no class name; say which "
            "classes there are with --labels=FILE"
        )
    if earlier["splits"] and names != earlier["classes"]:
        raise UserError(
            f"the output folder holds {', '.join(earlier['splits'])} with "
            f"the classes {', '.join(earlier['classes'])}; these are "
            f"{', '.join(names)}; take another --output_dir, or convert all "
            "splits together"
        )
    return names
