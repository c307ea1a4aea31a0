"""Detections of a whole data set against its ground truth.

Every image is seen exactly once, whatever the batch size. Knows no flags and
nothing of training; what a metric is stands in `ssd_tf.evaluation.metrics`.
"""

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ssd_tf import command
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.detect.detectors import IDS, PIXELS, Detector
from ssd_tf.evaluation.metrics import inputs
from ssd_tf.evaluation.metrics.bootstrap import Judged
from ssd_tf.evaluation.metrics.coco import IOU_THRESHOLDS, COCOMetric
from ssd_tf.evaluation.metrics.inputs import ImageResult
from ssd_tf.evaluation.metrics.voc import VOCMetric
from ssd_tf.input_pipeline import preprocessing
from ssd_tf.multibox.detection import DetectedBatch
from ssd_tf.nets.ssd import SSDNet

METRICS_FILE = "metrics.json"
Batch = Mapping[str, tf.Tensor]


def make_detect(
    net: SSDNet, options: DetectionParams = DetectionParams()
) -> Callable[[tf.Tensor], DetectedBatch]:
    """Returns the compiled function from a batch of images to its detections.

    It follows the net's weights. Who evaluates again and again makes it once:
    each has a graph of its own.
    """
    return tf.function(lambda images: net.detect(images, options))


def evaluate(
    net: SSDNet,
    batches: tf.data.Dataset,
    class_names: tuple[str, ...],
    options: DetectionParams = DetectionParams(),
    matching_threshold: float = 0.5,
    num_batches: int | None = None,
    detect: Callable[[tf.Tensor], DetectedBatch] | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Evaluates a net.

    Args:
      net: with its weights.
      batches: from `input_pipeline.make_for_eval`.
      class_names: without the background.
      options: of the detections that are counted.
      matching_threshold: IoU beyond which a VOC detection is right.
      num_batches: for the progress bar.
      detect: from `make_detect` with these net and options, if there is one.
      quiet: without a progress bar.

    Returns:
      See `measure`.
    """
    detect = detect or make_detect(net, options)

    def predict(batch: Batch) -> dict[str, np.ndarray]:
        found = detect(batch["image"])._asdict()
        return {name: value.numpy() for name, value in found.items()}

    images = collect(predict, batches, len(class_names), num_batches, quiet)
    metrics, _ = measure(images, class_names, matching_threshold)
    metrics["protocol"]["detections"] = vars(options)
    return metrics


def prepare_for(detector: Detector) -> Callable[[Batch], Batch]:
    """Returns the function from a parsed record to its element of a batch.

    It runs within tf.data: images are decoded in parallel, once each.
    """

    def prepare(record: Batch) -> Batch:
        if detector.takes == IDS:
            size = _stated_size(record)
            others = {key: x for key, x in record.items() if key != "image"}
            return {**others, "height": size[0], "width": size[1]}
        return with_size(
            record, detector.input_size if detector.takes == PIXELS else None
        )

    return prepare


def with_size(
    record: Batch, input_size: tuple[int, int] | None = None
) -> Batch:
    """Adds the image's true size; resizes it where `input_size` is given."""
    image, given = preprocessing.decode(record["image"]), record["image"]
    if input_size:
        given = preprocessing.resize(image, input_size)
    size = tf.shape(image)
    return {**record, "image": given, "height": size[0], "width": size[1]}


def _stated_size(record):
    """Returns other tools' records do not always state the size of the
    image.
    """
    stated = (record["height"] > 0) & (record["width"] > 0)
    size = tf.stack([record["height"], record["width"]])
    return tf.cond(
        stated,
        lambda: tf.cast(size, tf.int32),
        lambda: tf.shape(preprocessing.decode(record["image"]))[:2],
    )


def collect(
    predict: Callable[[Batch], Mapping[str, np.ndarray]],
    batches: tf.data.Dataset,
    num_classes: int,
    num_batches: int | None = None,
    quiet: bool = False,
) -> list[ImageResult]:
    """Detects on every image and keeps boxes, not pixels.

    Args:
      predict: function from a batch to arrays by `runtimes.NAMES`.
      batches: from `input_pipeline.make_for_eval`.
      num_classes: without the background.
      num_batches: for the progress bar.
      quiet: without a progress bar.
    """
    images = []
    show = _no_progress if quiet else command.progress
    with show("evaluating", num_batches) as advance:
        for batch in batches:
            found = predict(batch)
            truth = {
                key: value.numpy()
                for key, value in batch.items()
                if key != "image"
            }
            number = len(truth["source_id"])
            images += [
                _image_result(found, truth, index, num_classes)
                for index in range(number)
            ]
            advance(units=number)
    return images


@contextlib.contextmanager
def _no_progress(*_):
    yield lambda units: None


def _image_result(found, truth, index, num_classes):
    """Returns one image of a batch."""
    count = found["num_detections"][index]
    boxes, scores, classes = (
        found[f"detection_{name}"][index][:count]
        for name in ("boxes", "scores", "classes")
    )
    area = truth.get("area")
    return inputs.image_result(
        truth["source_id"][index].decode(errors="replace"),
        truth["height"][index],
        truth["width"][index],
        inputs.detections(boxes, scores, classes, num_classes),
        inputs.ground_truth(
            truth["boxes"][index],
            truth["labels"][index],
            truth["difficult"][index],
            truth["crowd"][index],
            num_classes,
            None if area is None else area[index],
        ),
    )


class Measured(NamedTuple):
    """Metrics, and what they were computed from."""

    metrics: dict[str, Any]
    judged: Judged


def measure(
    images: Sequence[ImageResult],
    class_names: Sequence[str],
    matching_threshold: float = 0.5,
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    num_workers: int = 1,
) -> Measured:
    """Computes the metrics of VOC and COCO.

    Args:
      images: of the data set.
      class_names: without the background.
      matching_threshold: IoU beyond which a VOC detection is right.
      iou_thresholds: that COCO's numbers are means over.
      num_workers: processes for COCO's, see `coco_class.evaluate_all`.

    Returns:
      `metrics`: `AP_VOC07/...`, `AP_VOC12/...` and `COCO/...` as the metrics
      name them, None where there is no ground truth; `COCO_per_class`, the
      twelve numbers of each; `num_images`; `protocol`, what the numbers mean;
      `left_out`, what they leave out.
      `judged`: every detection, right or wrong.
    """
    voc = VOCMetric(class_names, matching_threshold)
    coco = COCOMetric(class_names, iou_thresholds)
    for image in images:
        voc.add(image.found, image.truth)
        coco.add(image.found, image.truth)
    result = {**voc.result(), **coco.result(num_workers)}
    left_out = {
        "classes_without_ground_truth": result.pop("AP_VOC/left_out"),
        **result.pop("COCO/left_out"),
    }
    metrics = {
        **result,
        "COCO_per_class": coco.per_class(),
        "COCO_AP_by_iou": {
            "iou": list(coco.iou_thresholds),
            "AP": coco.by_iou(),
        },
        "num_images": len(images),
        "protocol": {"VOC": voc.protocol, "COCO": coco.protocol},
        "left_out": left_out,
    }
    return Measured(metrics, Judged(voc.outcomes(), coco.outcomes()))


def ground_truth_sha256(images: Sequence[ImageResult]) -> str:
    """Returns a checksum of what was to be found: who has the same saw the
    same."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(
            f"{image.source_id} {image.height} {image.width}".encode()
        )
        for column in image.truth[:4]:
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def print_metrics(
    metrics: Mapping[str, Any], class_names: Sequence[str]
) -> None:
    """Shows a table of classes, one of COCO's numbers, and what is left out."""

    def percent(key):
        value = metrics[key]
        return "-" if value is None else f"{100 * value:.1f}"

    def coco(name):
        value = (
            metrics["COCO/AP"]
            if name == "mAP"
            else metrics["COCO_per_class"][name]["AP"]
        )
        return "-" if value is None else f"{100 * value:.1f}"

    rows = [
        [
            name,
            *(percent(f"AP_{year}/{name}") for year in ("VOC07", "VOC12")),
            coco(name),
        ]
        for name in [*class_names, "mAP"]
    ]
    command.print_table(
        f"{metrics['num_images']} images, AP in %",
        ["class", "VOC07 11-point", "VOC12 area", "COCO"],
        rows,
    )
    keys = [key for key in metrics if key.startswith("COCO/")]
    command.print_table(
        "COCO, in %",
        [key.removeprefix("COCO/") for key in keys],
        [[percent(key) for key in keys]],
    )
    _print_intervals(metrics.get("bootstrap"))
    missing = metrics["left_out"]["classes_without_ground_truth"]
    if missing:
        command.say(
            "left out of the means, no ground truth: " + ", ".join(missing)
        )


def _print_intervals(bootstrap):
    """Prints the intervals of the means, if there are any."""
    if not bootstrap:
        return
    found = ", ".join(
        f"{name} {100 * low:.1f} to {100 * high:.1f}"
        for name, (low, high) in bootstrap["intervals"].items()
        if name.endswith("mAP") or name.startswith("COCO")
    )
    command.say(
        f"{100 * bootstrap['level']:.0f} % intervals over the images: {found}"
    )
