"""The flags of an export."""

from collections.abc import Sized

from absl import flags

from ssd_tf.command import UserError
from ssd_tf.command import flags as command_flags
from ssd_tf.config.evaluation import DetectionParams

INPUT_TYPES = ("image_bytes", "image_tensor", "tf_example")


def define(flag_values: flags.FlagValues) -> None:
    """Defines all of them."""
    flags.DEFINE_string(
        "checkpoint_path",
        None,
        "A train_dir, for its latest checkpoint, or a checkpoint in one.",
        flag_values=flag_values,
    )
    _define_output(flag_values)
    _define_saved_model(flag_values)
    _define_tflite(flag_values)
    _define_verify(flag_values)
    command_flags.define(DetectionParams, flag_values)


def _define_output(flag_values):
    flags.DEFINE_string(
        "export_dir",
        None,
        "Where the numbered versions are; TF Serving's base path.",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "version",
        None,
        "Number of the version that is written or verified [one more than "
        "the highest there is, or the highest].",
        lower_bound=1,
        flag_values=flag_values,
    )
    flags.DEFINE_list(
        "formats",
        ["saved_model"],
        "What is written, of saved_model, tflite (float32), tflite_float16, "
        "tflite_dynamic, tflite_int8 and onnx. None (--formats=, or --verify "
        "alone and an --export_dir with something in it): nothing is written, "
        "and what is there is verified.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "metrics",
        None,
        "metrics.json that model.json quotes [the newest evaluation of this "
        "checkpoint in the train_dir].",
        flag_values=flag_values,
    )


def _define_saved_model(flag_values):
    flags.DEFINE_enum(
        "input_type",
        "image_bytes",
        INPUT_TYPES,
        "What serving_default takes; image_tensor is that of TF Object "
        "Detection API, for its clients.",
        flag_values=flag_values,
    )
    flags.DEFINE_enum(
        "bad_images",
        "error",
        ("error", "empty"),
        "What an image that cannot be decoded brings: an error of its whole "
        "batch, or no detections.",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "max_image_megapixels",
        64,
        "Larger images are bad images.",
        lower_bound=1,
        flag_values=flag_values,
    )


def _define_tflite(flag_values):
    flags.DEFINE_boolean(
        "raw_heads",
        False,
        "TFLite files give logits, localisations and anchors, not detections; "
        "they are called model_raw.tflite, model_int8_raw.tflite ...",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "dataset_dir",
        None,
        "Images from which tflite_int8 learns its ranges: a folder that "
        "ssd_tf.datasets.convert has written, a VOC tree or a COCO file.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "dataset_split_name", "train", "Split of it.", flag_values=flag_values
    )
    flags.DEFINE_integer(
        "calibration_images",
        200,
        "So many of them.",
        lower_bound=1,
        flag_values=flag_values,
    )


def _define_verify(flag_values):
    flags.DEFINE_string(
        "verify",
        None,
        "Annotated images (as --dataset_dir) on which files are compared with "
        "the net: those that --formats names or, where it is not given, all "
        "in --export_dir that are of this checkpoint [two pictures of the "
        "built-in data, without mAP].",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "verify_split_name", "test", "Split of it.", flag_values=flag_values
    )
    flags.DEFINE_integer(
        "verify_images",
        100,
        "So many of them.",
        lower_bound=1,
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "verify_batch_size",
        1,
        "Images at once, whose time is measured.",
        lower_bound=1,
        flag_values=flag_values,
    )


def check(flag_values: flags.FlagValues, known: tuple[str, ...]) -> None:
    """Refuses formats that there are not, or that lack what they need.

    Args:
      flag_values: that have been read.
      known: names of formats.

    Raises:
      UserError: there is one.
    """
    for name in flag_values.formats:
        if name not in known:
            raise UserError(f"--formats={name}: choose of {', '.join(known)}")
    if "tflite_int8" in flag_values.formats and not flag_values.dataset_dir:
        raise UserError(
            "--formats=tflite_int8: learns its ranges from images; name "
            "them by --dataset_dir"
        )


def formats_of(flag_values: flags.FlagValues, there: Sized) -> list[str]:
    """Names of the formats that are to be written.

    Args:
      flag_values: that have been read.
      there: what --export_dir has already.
    """
    only_verify = flag_values.verify and not flag_values["formats"].present
    return [] if only_verify and there else flag_values.formats
