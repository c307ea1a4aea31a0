"""Turns weights of other software into a checkpoint of ssd_tf.

  python -m ssd_tf.weights --input=VGG_VOC0712_SSD_300x300.caffemodel \\
      --model_name=ssd_300_vgg_voc --output=imported

writes a folder like a train_dir: a checkpoint and config.json. A detector can
be evaluated, exported and trained on; a classifier is the start of a training:
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
import functools
import pathlib

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.command.settings import require, setting
from ssd_tf.config.presets import NetOptions
from ssd_tf.weights import formats
from ssd_tf.weights.base import Imported

_import = functools.partial(setting, section="import")


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """Everything that the command takes."""

    input: str | None = _import(
        None, "File, or prefix or folder of a TensorFlow checkpoint."
    )
    format: str | None = _import(
        None,
        "Software that wrote the weights [guessed from the file's bytes].",
        choices=formats.FORMATS,
    )
    output: str | None = _import(None, "New folder to write.")
    labels: str | None = _import(
        None,
        "labels.txt or .pbtxt with the detector's class names [VOC's 20 or "
        "COCO's 80, by their number].",
    )
    ema: bool = _import(False, "Take the moving averages of a TF1 checkpoint.")
    ignore_missing_vars: bool = _import(
        False, "Write the net although the file lacks some of its variables."
    )
    inspect: str | None = _import(
        None, "File whose arrays are listed; nothing is imported."
    )
    net: NetOptions = NetOptions()


def class_names_of(
    imported: Imported, labels_file: str | None
) -> tuple[str, ...]:
    """Returns the class names of an imported net.

    Raises:
      UserError: the names are unknown, or the file has another number of them.
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
    if imported.class_names is not None:
        return imported.class_names
    for names in (labels.VOC_LABELS, labels.COCO_LABELS, ()):
        if len(names) == number:
            return names
    raise UserError(
        f"--labels is missing: the names of the {number} classes are unknown"
    )


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


def main(options: ImportOptions) -> None:
    """Imports or inspects a file."""
    if not options.inspect:
        require(options, "input", "output")
    command.load_tensorflow()
    if options.inspect:
        inspect(options.inspect, options.format)
        return
    from ssd_tf.nets import applications
    from ssd_tf.weights import importing

    output = pathlib.Path(options.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: is there already; choose a new --output")
    # The net that the file shall fill.
    params = options.net.params
    if options.net.trunk:
        params = applications.with_trunk(params, options.net.trunk)
    # Read the file, by our names and in our layouts.
    imported = formats.load(options.input, params, options.format, options.ema)
    # Fill a net and write it, unless something required is missing.
    report = importing.import_weights(
        imported,
        class_names_of(imported, options.labels),
        output,
        options.ignore_missing_vars,
    )
    importing.print_report(report, options.input)
    for sentence in imported.assumed:
        command.say(f"assumed: {sentence}")
    if not report.fits(options.ignore_missing_vars):
        raise UserError(
            f"{options.input}: does not fill {options.net.model_name}: "
            f"{len(report.missing)} variables are missing, "
            f"{len(report.mismatched)} have another shape; nothing was written"
        )
    after = "eval_ssd.py" if imported.detector else "train_ssd.py"
    command.say(f"{output}: next: python {after} --checkpoint_path={output}")


def run() -> None:
    """Runs the command `ssd-import`."""
    command.run(main, ImportOptions, __doc__)


if __name__ == "__main__":
    run()
