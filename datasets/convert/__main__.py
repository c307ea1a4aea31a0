"""Converts an annotated data set into TFRecord shards.

  python -m ssd_tf.datasets.convert --format=voc --output_dir=data/voc \\
      --dataset_dir=VOC2007,VOC2012 --splits=trainval,test

Writes SPLIT-00000-of-0000N.tfrecord, labels.txt, label_map.pbtxt and, last,
manifest.json: how many images and boxes per split and class, the shards'
checksums, and everything that was skipped, dropped, clipped or mended.
The output is the same byte for byte for the same input, whatever the number
of processes. Convert into one folder with one command at a time.
"""

import os
import pathlib
from collections.abc import Sequence

from absl import flags

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.datasets import catalog, labels
from ssd_tf.datasets.annotation import Annotation
from ssd_tf.datasets.convert import publish
from ssd_tf.datasets.convert.split import IMAGES_PER_SHARD, convert_split
from ssd_tf.datasets.formats import shapes, voc

FORMAT_VERSION = 1

# A format is a module with `splits(roots)` and `read(roots, split)`.
_READERS = {"voc": voc}
_BUILT_IN_LABELS = {"voc": labels.VOC_LABELS, "coco": labels.COCO_LABELS}

FLAGS = flags.FlagValues()
flags.DEFINE_enum(
    "format",
    "voc",
    [*_READERS, "shapes"],
    "Format of the annotations; shapes makes the built-in data set.",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "dataset_dir",
    [],
    "Folder of the data set, or several, separated by commas, whose union is "
    "taken. With --format=shapes: where the pictures are put "
    "[OUTPUT_DIR/raw].",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "output_dir", None, "Where the shards are written.", flag_values=FLAGS
)
flags.DEFINE_list(
    "splits", [], "Splits to convert [all there are].", flag_values=FLAGS
)
flags.DEFINE_string(
    "labels",
    None,
    "File of class names, class 1 first (labels.txt or a .pbtxt label map), "
    "or `voc` or `coco` for their known lists; boxes of other classes are "
    "dropped and named [the names found in the data, sorted].",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "num_shards",
    None,
    f"Shards per split [one per {IMAGES_PER_SHARD} images].",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "num_workers",
    None,
    "Processes [one per processor].",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "on_error",
    "skip",
    ["skip", "fail"],
    "What to do about bad input: skip it, name it in manifest.json and go on, "
    "or fail at the first.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "shapes_train", 1200, "Shapes: training images.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "shapes_test", 300, "Shapes: test images.", flag_values=FLAGS
)
flags.DEFINE_integer("seed", 0, "Shapes: which pictures.", flag_values=FLAGS)


def convert(
    source_format: str,
    dataset_dirs: Sequence[str | pathlib.Path],
    output_dir: str | pathlib.Path,
    splits: Sequence[str] = (),
    class_names: Sequence[str] | None = None,
    num_shards: int | None = None,
    num_workers: int | None = None,
    on_error: str = "skip",
) -> dict:
    """Converts splits of a data set; their shards appear all at once.

    That is, by renames in one go when all are complete; only a kill within
    these few milliseconds leaves new shards under an older manifest.

    Splits that the folder has from earlier keep their shards, if the class
    names are the same; splits converted again are replaced.

    Args:
      source_format: "voc".
      dataset_dirs: the roots, whose union is taken.
      output_dir: made if it is not there.
      splits: all splits of the data set by default.
      class_names: found in the data by default, sorted.
      num_shards, num_workers: None for what suits the split.
      on_error: "skip" or "fail".

    Returns:
      The manifest.

    Raises:
      UserError: nothing to convert, class names that do not fit, or with
        "fail" the first bad input.
    """
    if source_format not in _READERS or on_error not in ("skip", "fail"):
        raise UserError(
            f"expected a format of {', '.join(_READERS)} and on_error skip "
            f"or fail; received {source_format!r} and {on_error!r}"
        )
    reader = _READERS[source_format]
    roots = [pathlib.Path(folder) for folder in dataset_dirs]
    output_dir = pathlib.Path(output_dir)
    publish.remove_stale(output_dir)
    found = {
        split: _read_split(reader, roots, split)
        for split in splits or reader.splits(roots)
    }
    manifest = _earlier_manifest(output_dir, without=found)
    manifest["classes"] = _choose_class_names(found, class_names, manifest)
    source = {"format": source_format, "dataset_dir": list(map(str, roots))}
    with publish.staging(output_dir) as folder:
        for split, items in found.items():
            manifest["splits"][split] = {"source": source} | convert_split(
                split,
                items,
                folder,
                manifest["classes"],
                num_shards,
                num_workers,
                on_error,
            )
        publish.publish(folder, output_dir, manifest, found)
    return manifest


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
    """What the folder holds besides the splits that are to be converted."""
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
    """The names asked for, or those of earlier splits, or all there are."""
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


def main() -> None:
    """Reads the flags and converts."""
    if not FLAGS.output_dir:
        raise UserError("--output_dir is missing: the folder for the shards")
    source_format, roots = FLAGS.format, FLAGS.dataset_dir
    if source_format == "shapes":
        source_format, roots = "voc", [_write_shapes(roots)]
    if not roots:
        raise UserError("--dataset_dir is missing: the folder to convert")
    manifest = convert(
        source_format,
        roots,
        FLAGS.output_dir,
        FLAGS.splits,
        _read_class_names(FLAGS.labels),
        FLAGS.num_shards,
        FLAGS.num_workers,
        FLAGS.on_error,
    )
    splits = manifest["splits"]
    command.print_table(
        "boxes",
        ["class", *splits],
        [
            [name, *(part["boxes_per_class"][name] for part in splits.values())]
            for name in manifest["classes"]
        ],
    )


def _write_shapes(roots):
    if len(roots) > 1:
        raise UserError(
            f"--dataset_dir={','.join(roots)}: shapes are put into one folder"
        )
    tree = roots[0] if roots else os.path.join(FLAGS.output_dir, "raw")
    try:
        return shapes.write_dataset(
            tree, FLAGS.shapes_train, FLAGS.shapes_test, seed=FLAGS.seed
        )
    except OSError as error:
        raise UserError(f"{tree}: cannot be written: {error}") from error


def _read_class_names(flag):
    if flag is None:
        return None
    return _BUILT_IN_LABELS.get(flag) or labels.read(flag)


def run() -> None:
    """The command `ssd-convert`."""
    command.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    run()
