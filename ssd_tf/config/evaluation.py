"""The settings of detection and of evaluation."""

import dataclasses
import functools

from ssd_tf.command.settings import setting
from ssd_tf.config import data

_data = functools.partial(setting, section="data")
_detector = functools.partial(setting, section="detector")
_detection = functools.partial(setting, section="detection")
_metrics = functools.partial(setting, section="metrics")
_report = functools.partial(setting, section="report")


@dataclasses.dataclass(frozen=True)
class DetectionParams:
    """Arguments of `detection.detect`; defaults of ssd_pascal.py."""

    select_threshold: float = _detection(
        0.01, "Lowest score of a detection.", low=0, high=1
    )
    nms_threshold: float = _detection(
        0.45,
        "IoU above which non-maximum suppression removes the lower score of a "
        "class.",
        low=0,
        high=1,
    )
    top_k: int = _detection(
        400,
        "Number of candidates per class before suppression.",
        low=1,
        flag="select_top_k",
    )
    keep_top_k: int = _detection(
        200, "Number of detections per image, over all classes.", low=1
    )


def _rising_overlaps(values: tuple[float, ...]) -> bool:
    rising = list(values) == sorted({*values})
    return bool(values) and rising and 0 < values[0] and values[-1] <= 1


@dataclasses.dataclass(frozen=True)
class EvalParams:
    """Protocol of the metrics, and the results that are written."""

    matching_threshold: float = _metrics(
        0.5,
        "IoU above which a detection is correct in VOC's metrics.",
        low=0,
        high=0.99,
    )
    iou_thresholds: tuple[float, ...] | None = _metrics(
        None,
        "IoUs that COCO's AP is the mean over [0.50, 0.55 .. 0.95].",
        flag="coco_iou_thresholds",
        is_valid=_rising_overlaps,
        expected="rising overlaps above 0 and up to 1, separated by commas",
    )
    bootstrap: int = _metrics(
        1000,
        "Resamplings of the images for confidence intervals; 0: none.",
        low=0,
    )
    seed: int = _metrics(0, "Seed of the resampling.", low=0)
    num_workers: int = 1  # processes for COCO's metrics
    report: bool = _report(True, "Write the HTML report.")
    report_images: int = _report(
        12,
        "Number of worst images in the report; half as many best ones.",
        low=0,
    )
    save_detections: bool = _report(
        False, "Write detections.json in COCO's results format."
    )


@dataclasses.dataclass(frozen=True)
class EvalOptions:
    """Everything that eval_ssd.py and `ssd_tf.evaluate` take."""

    dataset_dir: str | None = data.dataset_dir(
        "Folder that ssd_tf.datasets.convert has written, a VOC tree, or a "
        "COCO annotation file or the folder of its data set."
    )
    dataset_split_name: str = data.dataset_split_name(
        "test", "Split to evaluate on."
    )
    image_dir: str | None = _data(
        None, "Images of a COCO annotation file [beside the file]."
    )
    unreadable_shards: str = data.unreadable_shards()
    checkpoint_path: str | None = _detector(
        None,
        "Detector to evaluate: a train_dir, for its latest checkpoint, or a "
        "checkpoint in it; an exported SavedModel; a .tflite or .onnx file; "
        "or a .json file of detections in COCO's results format.",
    )
    labels: str | None = _detector(
        None,
        "Class names of a .tflite, .onnx or .json file: line k of a labels.txt "
        "names class k [those inside the file, else labels.txt beside it].",
    )
    batch_size: int = _detector(8, "Number of images per batch.", low=1)
    max_num_batches: int | None = _detector(
        None, "Number of batches to evaluate [all].", low=1
    )
    wait_for_checkpoints: bool = _detector(
        False, "Evaluate every new checkpoint of a train_dir, until Ctrl-C."
    )
    eval_dir: str | None = _report(
        None,
        "Folder for metrics.json and report/ [eval_SPLIT in a train_dir, "
        "eval_SPLIT_NAME beside a checkpoint or file that is named]; with "
        "--wait_for_checkpoints each checkpoint has its folder in it.",
    )
    compare: tuple[str, ...] | None = _report(
        None,
        "Two metrics.json of the same images: by how much the second is "
        "better, and whether that is more than chance.",
    )
    detection: DetectionParams = DetectionParams()
    metrics: EvalParams = EvalParams()
    given: frozenset[str] = frozenset()  # names that were not left out
