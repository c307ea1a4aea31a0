"""The settings of detection and of its evaluation."""

import dataclasses
import functools

from ssd_tf.command.settings import setting

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
        "Candidates per class before suppression.",
        low=1,
        flag="select_top_k",
    )
    keep_top_k: int = _detection(
        200, "Detections per image, over all classes.", low=1
    )


def _rising_overlaps(values: tuple[float, ...]) -> bool:
    rising = list(values) == sorted({*values})
    return bool(values) and rising and 0 < values[0] and values[-1] <= 1


@dataclasses.dataclass(frozen=True)
class EvalParams:
    """How detections are judged, and which results are kept."""

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
