"""The flags of an evaluation, and what two of them mean together."""

import csv
import io
import math
import os
import pathlib
from collections.abc import Sequence

from absl import flags

from ssd_tf.command import UserError, settings
from ssd_tf.command import flags as command_flags
from ssd_tf.config.evaluation import DetectionParams, EvalParams


def define(flag_values: flags.FlagValues) -> None:
    """Defines all of them."""
    flags.DEFINE_string(
        "dataset_dir",
        None,
        "Folder that ssd_tf.datasets.convert has written, a VOC tree, or a "
        "COCO annotation file or the folder of its data set.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "dataset_split_name", "test", "Split of it.", flag_values=flag_values
    )
    flags.DEFINE_enum(
        "unreadable_shards",
        "fatal",
        ["fatal", "skip"],
        "Stop at a damaged TFRecord file, or leave it out.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "checkpoint_path",
        None,
        "What is evaluated: a train_dir, for its latest checkpoint, or a "
        "checkpoint in one; an exported SavedModel; a .tflite or .onnx file; "
        "or a .json file of detections in COCO's format.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "labels",
        None,
        "labels.txt of a .tflite, .onnx or .json file: line k names class k "
        "[what the file itself says, or labels.txt beside it].",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "image_dir",
        None,
        "Images of a COCO annotation file, where they are not beside it.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "eval_dir",
        None,
        "Where metrics.json and report/ go [eval_SPLIT in a train_dir, "
        "eval_SPLIT_NAME beside a checkpoint or file that is named]; with "
        "--wait_for_checkpoints a folder in it for each.",
        flag_values=flag_values,
    )
    for name, default, text in (
        ("batch_size", 8, "Images at once."),
        ("max_num_batches", None, "Evaluate the first batches only."),
    ):
        flags.DEFINE_integer(
            name, default, text, lower_bound=1, flag_values=flag_values
        )
    _define_metrics(flag_values)
    flags.DEFINE_boolean(
        "report", True, "Write the HTML report.", flag_values=flag_values
    )
    flags.DEFINE_integer(
        "report_images",
        12,
        "Worst images in the report, and half as many best ones.",
        lower_bound=0,
        flag_values=flag_values,
    )
    flags.DEFINE_boolean(
        "save_detections",
        False,
        "Write detections.json in COCO's format of results.",
        flag_values=flag_values,
    )
    flags.DEFINE_boolean(
        "wait_for_checkpoints",
        False,
        "Evaluate every new checkpoint of a train_dir, until interrupted.",
        flag_values=flag_values,
    )
    flags.DEFINE_list(
        "compare",
        None,
        "Two metrics.json of the same images: how much the second is better, "
        "and whether that is more than chance.",
        flag_values=flag_values,
    )
    command_flags.define(DetectionParams, flag_values)


def _define_metrics(flag_values):
    flags.DEFINE_float(
        "matching_threshold",
        0.5,
        "IoU beyond which a VOC detection is right.",
        lower_bound=0,
        upper_bound=0.99,
        flag_values=flag_values,
    )
    flags.DEFINE_list(
        "coco_iou_thresholds",
        [],
        "Overlaps that COCO's AP is the mean over [0.50, 0.55 .. 0.95].",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "bootstrap",
        1000,
        "Resamplings of the images for intervals; 0: none.",
        lower_bound=0,
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "seed",
        0,
        "Of the resampling.",
        lower_bound=0,
        flag_values=flag_values,
    )


def read(flag_values: flags.FlagValues) -> EvalParams:
    """How to judge, and what to keep.

    Raises:
      UserError: a value that is none.
    """
    if not math.isfinite(flag_values.matching_threshold):
        raise UserError(
            f"--matching_threshold={flag_values.matching_threshold}: expected "
            "an overlap of at least 0 and below 1"
        )
    return EvalParams(
        matching_threshold=flag_values.matching_threshold,
        iou_thresholds=_iou_thresholds(flag_values),
        bootstrap=flag_values.bootstrap,
        seed=flag_values.seed,
        num_workers=os.cpu_count() or 1,
        report=flag_values.report,
        report_images=flag_values.report_images,
        save_detections=flag_values.save_detections,
    )


def read_detection(
    flag_values: flags.FlagValues, has_options: bool
) -> DetectionParams:
    """How to detect.

    Raises:
      UserError: a flag is given although the detector has its own.
    """
    options = command_flags.read(DetectionParams, flag_values)
    given = [
        field.flag
        for field in settings.fields(DetectionParams)
        if flag_values[field.flag].present
    ]
    if given and not has_options:
        raise UserError(
            f"--{given[0]}: only for a checkpoint; an exported model and a "
            "file of detections have their own"
        )
    return options


def _iou_thresholds(flag_values):
    """What --coco_iou_thresholds says; None for COCO's own."""
    words = flag_values.coco_iou_thresholds
    if not words:
        return None
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        numbers = (0.0,)
    rising = list(numbers) == sorted({*numbers})
    if not (rising and 0 < numbers[0] and numbers[-1] <= 1):
        raise UserError(
            f"--coco_iou_thresholds={','.join(words)}: expected rising "
            "overlaps above 0 and up to 1, separated by commas"
        )
    return numbers


def joined_compare(argv: Sequence[str]) -> list[str]:
    """The arguments, with `--compare A B` as absl wants it: `--compare=A,B`."""
    argv = list(argv)
    if "--compare" in argv:
        at = argv.index("--compare")
        argv[at : at + 3] = ["--compare=" + _csv(argv[at + 1 : at + 3])]
    return argv


def _csv(words):
    """A list as absl reads it: a path with a comma is in quotes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(words)
    return text.getvalue()


def eval_dir(
    flag_values: flags.FlagValues, asked: str, evaluated: str
) -> pathlib.Path:
    """Where the results go.

    Only a train_dir's latest checkpoint has a folder without a name of its
    own; each of several checkpoints keeps its results.

    Args:
      flag_values: with --eval_dir, --dataset_split_name and
        --wait_for_checkpoints.
      asked: what the user or a wait has named.
      evaluated: the checkpoint's prefix, or the path of another model.
    """
    path, split = pathlib.Path(evaluated), flag_values.dataset_split_name
    if flag_values.eval_dir:
        own = path.name if flag_values.wait_for_checkpoints else ""
        return pathlib.Path(flag_values.eval_dir, own)
    is_checkpoint = path.with_name(path.name + ".index").is_file()
    is_latest = is_checkpoint and pathlib.Path(asked).is_dir()
    name = f"eval_{split}" if is_latest else f"eval_{split}_{path.name}"
    return path.parent / name
