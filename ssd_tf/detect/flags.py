"""The flags of the detect command."""

from absl import flags

from ssd_tf.command import flags as command_flags
from ssd_tf.config.evaluation import DetectionParams


def define(flag_values: flags.FlagValues) -> None:
    """Defines them all."""
    _define_model(flag_values)
    _define_input(flag_values)
    _define_output(flag_values)
    command_flags.define(DetectionParams, flag_values)


def _define_model(flag_values):
    flags.DEFINE_string(
        "model",
        None,
        "A train_dir, a checkpoint in one, an exported model, or a .tflite or "
        ".onnx file.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "labels",
        None,
        "Class names of a .tflite or .onnx file, one a line, class 1 first "
        "[labels.txt beside it, else classes are called by their numbers].",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "batch_size",
        8,
        "Images at once; three times as many are in memory.",
        lower_bound=1,
        flag_values=flag_values,
    )


def _define_input(flag_values):
    flags.DEFINE_string(
        "input",
        None,
        "Images, videos, TFRecord files, folders of them, patterns "
        '("a/**/*.jpg"), webcam or webcam:1, separated by commas.',
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "dataset_split_name",
        None,
        "Split of the TFRecords in folders of --input.",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "max_frames",
        None,
        "Most frames of each video or camera [all, until Ctrl-C].",
        lower_bound=1,
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "max_image_megapixels",
        64,
        "Larger images and videos are not read.",
        lower_bound=1,
        flag_values=flag_values,
    )


def _define_output(flag_values):
    flags.DEFINE_string(
        "output_dir", None, "Where all results go.", flag_values=flag_values
    )
    flags.DEFINE_list(
        "formats",
        ["json"],
        "What tells of the detections: json, csv (a row per detection, in "
        "pixels), coco (results and list of images), voc (a tree to correct by "
        "hand).",
        flag_values=flag_values,
    )
    flags.DEFINE_boolean(
        "save_pictures",
        True,
        "Draw pictures and videos.",
        flag_values=flag_values,
    )
    flags.DEFINE_boolean(
        "save_crops",
        False,
        "Cut out each detection: crops/CLASS/IMAGE_1.jpg ...",
        flag_values=flag_values,
    )
    flags.DEFINE_float(
        "min_score",
        0.5,
        "Smallest score in pictures, crops, csv and voc; json and coco have "
        "all detections, from --select_threshold on.",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=flag_values,
    )
