"""The settings of an export."""

import dataclasses
import functools

from ssd_tf.command.settings import setting
from ssd_tf.config.evaluation import DetectionParams

SAVED_MODEL = "saved_model"
ONNX = "onnx"
TFLITE_INT8 = "tflite_int8"
TFLITE = ("tflite", "tflite_float16", "tflite_dynamic", TFLITE_INT8)
FORMATS = (SAVED_MODEL, *TFLITE, ONNX)
INPUT_TYPES = ("image_bytes", "image_tensor", "tf_example")

_output = functools.partial(setting, section="output")
_saved_model = functools.partial(setting, section="saved_model")
_tflite = functools.partial(setting, section="tflite")
_verify = functools.partial(setting, section="verification")


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Everything that the command and `ssd_tf.export_model` take."""

    checkpoint_path: str | None = _output(
        None, "A train_dir, for its latest checkpoint, or a checkpoint in it."
    )
    export_dir: str | None = _output(
        None, "Folder of the numbered versions: TensorFlow Serving's base path."
    )
    version: int | None = _output(
        None,
        "Number of the version to write or to verify [one more than the "
        "highest, or the highest].",
        low=1,
    )
    formats: tuple[str, ...] = _output(
        (SAVED_MODEL,),
        f"Formats to write, of {', '.join(FORMATS)}. None (--formats=, or "
        "--verify alone where --export_dir has files): the existing files are "
        "verified.",
        choices=FORMATS,
        expected=f"some of {', '.join(FORMATS)}, separated by commas",
    )
    metrics: str | None = _output(
        None,
        "metrics.json that model.json quotes [the newest evaluation of this "
        "checkpoint in the train_dir].",
    )
    input_type: str = _saved_model(
        "image_bytes",
        "Input of serving_default; image_tensor is that of TF Object Detection "
        "API, for its clients.",
        choices=INPUT_TYPES,
    )
    bad_images: str = _saved_model(
        "error",
        "Result of an image that cannot be decoded: an error of its whole "
        "batch, or empty detections.",
        choices=("error", "empty"),
    )
    max_image_megapixels: int = _saved_model(
        64, "Larger images count as bad images.", low=1
    )
    raw_heads: bool = _tflite(
        False,
        "Write TFLite files that return logits, localisations and anchors in "
        "place of detections: model_raw.tflite, model_int8_raw.tflite ...",
    )
    dataset_dir: str | None = _tflite(
        None,
        "Images that calibrate tflite_int8: a folder that "
        "ssd_tf.datasets.convert has written, a VOC tree or a COCO file.",
    )
    dataset_split_name: str = _tflite(
        "train", "Split of the calibration images."
    )
    calibration_images: int = _tflite(
        200, "Number of calibration images.", low=1
    )
    verify: str | None = _verify(
        None,
        "Annotated images (as --dataset_dir) on which files are compared with "
        "the net: those of --formats or, where it is not given, all in "
        "--export_dir of this checkpoint [two pictures of the built-in data, "
        "without mAP].",
    )
    verify_split_name: str = _verify("test", "Split of the annotated images.")
    verify_images: int = _verify(100, "Number of annotated images.", low=1)
    verify_batch_size: int = _verify(
        1, "Images per batch, whose time is measured.", low=1
    )
    detection: DetectionParams = DetectionParams()
    given: frozenset[str] = frozenset()  # names that were not left out
