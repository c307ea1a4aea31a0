"""Turns weights of other software into a checkpoint of ssd_tf.

  python -m ssd_tf.weights --input=VGG_VOC0712_SSD_300x300.caffemodel \\
      --model_name=ssd_300_vgg_voc --output=imported

writes what a train_dir has: a checkpoint and config.json. A detector can be
evaluated, exported and trained on; a classifier is the start of a training:
train_ssd.py --checkpoint_path=imported.

  port    SSD-TensorFlow's checkpoints, V1 and V2
  slim    TF-Slim's vgg_16, resnet_v1_50 (101, 152), mobilenet_v2
  caffe   .caffemodel of VGG SSD300 and SSD512, VGG_ILSVRC_16_layers_fc_reduced
  torch   torchvision's ssd300_vgg16, vgg16, resnet50 (101, 152), mobilenet_v2;
          ssd.pytorch's vgg16_reducedfc.pth and ssd300_*.pth
  keras   .weights.h5, .keras and .h5 of keras.applications and of ssd_tf

  python -m ssd_tf.weights --inspect=FILE

lists the names and shapes in any of them.
"""

import dataclasses
import pathlib
from typing import TYPE_CHECKING

from absl import flags

from ssd_tf import command
from ssd_tf.command import UserError, files
from ssd_tf.command import flags as command_flags
from ssd_tf.config import run as config
from ssd_tf.config.presets import NetOptions
from ssd_tf.weights import formats

if TYPE_CHECKING:
    from ssd_tf.weights.imported import Imported
    from ssd_tf.weights.matching import Report

REPORT_FILE = "import.json"
# Names that are shown of each kind; the file has all.
_SHOWN = 8

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "input",
    None,
    "File, or prefix or folder of a TensorFlow checkpoint.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "format",
    None,
    formats.FORMATS,
    "Where the weights come from [by what the file looks like].",
    flag_values=FLAGS,
)
command_flags.define(NetOptions, FLAGS)
flags.DEFINE_string(
    "output", None, "Folder to write, a new one.", flag_values=FLAGS
)
flags.DEFINE_string(
    "labels",
    None,
    "labels.txt or .pbtxt with the detector's class names [VOC's 20 or COCO's "
    "80, by their number].",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "ema",
    False,
    "Take the moving averages of a TF1 checkpoint.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "ignore_missing_vars",
    False,
    "Write the net although the file lacks some of it.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "inspect", None, "Only list what is in this file.", flag_values=FLAGS
)


def import_weights(
    imported: "Imported",
    class_names: tuple[str, ...],
    output: pathlib.Path,
    ignore_missing_vars: bool = False,
) -> "Report":
    """Writes a folder with the net, its config.json and the report.

    Args:
      imported: from `ssd_tf.weights.formats.load`.
      class_names: without the background.
      output: the new folder.
      ignore_missing_vars: what the file lacks keeps its initial values.

    Returns:
      What fitted; nothing was written unless it `fits`.

    Raises:
      FileExistsError: `output` is there and not empty.
    """
    import keras

    from ssd_tf.nets import checkpoint
    from ssd_tf.nets.ssd import SSDNet
    from ssd_tf.weights import matching

    keras.utils.set_random_seed(0)
    net = SSDNet(imported.params)
    report = matching.assign(net, imported)
    if not report.fits(ignore_missing_vars):
        return report
    settings = config.Config(
        net.params, class_names, untrained=report.missing + report.fresh
    )
    with files.new_directory(output) as temporary:
        checkpoint.save_weights(net, temporary)
        config.save(settings, temporary)
        files.write_json(
            temporary / REPORT_FILE,
            {**dataclasses.asdict(report), "assumed": imported.assumed},
        )
    return report


def class_names_of(
    imported: "Imported", labels_file: str | None
) -> tuple[str, ...]:
    """What an imported net's classes are called.

    Raises:
      UserError: nobody knows, or the file names another number of classes.
    """
    from ssd_tf.datasets import labels

    number = imported.params.num_classes - 1
    if labels_file:
        names = tuple(labels.read(labels_file))
        if len(names) != number:
            raise UserError(
                f"{labels_file}: names {len(names)} classes, the weights have "
                f"{number}"
            )
        return names
    known = {
        len(names): names
        for names in (labels.VOC_LABELS, labels.COCO_LABELS, ())
    }
    if imported.class_names is None and number not in known:
        raise UserError(
            f"--labels is missing: nobody knows the names of the {number} "
            "classes"
        )
    return (
        known[number] if imported.class_names is None else imported.class_names
    )


def print_report(report: "Report", source: str) -> None:
    """Shows what fitted, and the first names of what did not."""
    mismatched = [
        f"{name} is {ours}, there {theirs}"
        for name, ours, theirs in report.mismatched
    ]
    kinds = {
        "matched": (report.matched, "taken from the file"),
        "missing": (report.missing, "the net needs it, the file lacks it"),
        "fresh": (report.fresh, "no part of a classifier, starts fresh"),
        "shape mismatch": (mismatched, "in the net, and in the file"),
        "unused": (report.unused, "in the file, of no use to the net"),
    }
    command.print_table(
        pathlib.Path(source).name,
        ["what", "number", "meaning"],
        [
            [kind, len(names), meaning]
            for kind, (names, meaning) in kinds.items()
        ],
    )
    for kind in ("missing", "shape mismatch", "unused"):
        names, _ = kinds[kind]
        for name in names[:_SHOWN]:
            command.say(f"{kind}: {name}")
        if len(names) > _SHOWN:
            command.say(f"{kind}: ... and {len(names) - _SHOWN} more")


def inspect(path: str, name: str | None) -> None:
    """Prints names, shapes and types of all arrays of a file."""
    arrays = formats.read(path, name).arrays
    command.print_table(
        pathlib.Path(path).name,
        ["name", "shape", "type"],
        [
            [key, "x".join(map(str, array.shape)) or "scalar", array.dtype]
            for key, array in arrays.items()
        ],
    )
    size = sum(array.size for array in arrays.values())
    command.say(f"{len(arrays)} arrays, {size:,} numbers")


def main() -> None:
    """Reads the flags and imports or inspects."""
    if not FLAGS.inspect:
        command.require(FLAGS, "input", "output")
    command.load_tensorflow()
    if FLAGS.inspect:
        inspect(FLAGS.inspect, FLAGS.format)
        return
    from ssd_tf.weights import start

    output = pathlib.Path(FLAGS.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: is there already; choose a new --output")
    params = command_flags.read(NetOptions, FLAGS).params
    if FLAGS.trunk:
        params = start.with_trunk(params, FLAGS.trunk)
    imported = formats.load(FLAGS.input, params, FLAGS.format, FLAGS.ema)
    report = import_weights(
        imported,
        class_names_of(imported, FLAGS.labels),
        output,
        FLAGS.ignore_missing_vars,
    )
    print_report(report, FLAGS.input)
    for sentence in imported.assumed:
        command.say(f"assumed: {sentence}")
    if not report.fits(FLAGS.ignore_missing_vars):
        raise UserError(
            f"{FLAGS.input}: does not fill {FLAGS.model_name}: "
            f"{len(report.missing)} variables are missing, "
            f"{len(report.mismatched)} have another shape; nothing was written"
        )
    after = "eval_ssd.py" if imported.detector else "train_ssd.py"
    command.say(f"{output}: next: python {after} --checkpoint_path={output}")


def run() -> None:
    """The command `ssd-import`."""
    command.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    run()
