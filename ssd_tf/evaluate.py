"""Detections of a whole data set against its ground truth.

Every image is seen exactly once, whatever the batch size. Knows no flags and
nothing of training; what a metric is stands in `ssd_tf.metrics`.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ssd_tf import command
from ssd_tf.config import DetectionParams
from ssd_tf.detection import Detections
from ssd_tf.metrics.coco import COCOMetric
from ssd_tf.metrics.voc import VOCMetric
from ssd_tf.nets.ssd import SSDNet

METRICS_FILE = "metrics.json"


def make_detect(
    net: SSDNet, options: DetectionParams = DetectionParams()
) -> Callable[[tf.Tensor], Detections]:
    """The compiled function from a batch of images to its detections.

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
    detect: Callable[[tf.Tensor], Detections] | None = None,
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
      `AP_VOC07/...`, `AP_VOC12/...` and `COCO/...` as the metrics name them,
      None where there is no ground truth; `num_images`; `protocol`, what the
      numbers mean; `left_out`, what they leave out.
    """
    voc = VOCMetric(class_names, matching_threshold)
    coco = COCOMetric(class_names)
    detect = detect or make_detect(net, options)
    num_images = 0
    show = _no_progress if quiet else command.progress
    with show("evaluating", num_batches) as advance:
        for batch in batches:
            found = [part.numpy() for part in detect(batch["image"])]
            truth = {
                key: value.numpy()
                for key, value in batch.items()
                if key not in ("image", "source_id")
            }
            for index in range(len(found[0])):
                _update(voc, coco, found, truth, index)
            num_images += len(found[0])
            advance(units=len(found[0]))
    result = {**voc.result(), **coco.result()}
    left_out = {
        "classes_without_ground_truth": result.pop("AP_VOC/left_out"),
        **result.pop("COCO/left_out"),
    }
    return {
        **result,
        "num_images": num_images,
        "protocol": {
            "VOC": voc.protocol,
            "COCO": coco.protocol,
            "detections": vars(options),
        },
        "left_out": left_out,
    }


@contextlib.contextmanager
def _no_progress(*_):
    yield lambda units: None


def _update(voc, coco, found, truth, index):
    """Adds one image of a batch to both metrics."""
    boxes, scores, classes, count = (part[index] for part in found)
    image = (
        boxes[:count],
        scores[:count],
        classes[:count],
        truth["boxes"][index],
        truth["labels"][index],
        truth["difficult"][index],
        truth["crowd"][index],
    )
    voc.update(*image)
    coco.update(
        *image, height=truth["height"][index], width=truth["width"][index]
    )


def print_metrics(
    metrics: dict[str, Any], class_names: tuple[str, ...]
) -> None:
    """Shows a table of classes, one of COCO's numbers, and what is left out."""

    def percent(key):
        value = metrics[key]
        return "-" if value is None else f"{100 * value:.1f}"

    rows = [
        [name, *(percent(f"AP_{year}/{name}") for year in ("VOC07", "VOC12"))]
        for name in [*class_names, "mAP"]
    ]
    command.print_table(
        f"{metrics['num_images']} images, AP in %",
        ["class", "VOC07 11-point", "VOC12 area"],
        rows,
    )
    coco = [key for key in metrics if key.startswith("COCO/")]
    command.print_table(
        "COCO, in %",
        [key.removeprefix("COCO/") for key in coco],
        [[percent(key) for key in coco]],
    )
    missing = metrics["left_out"]["classes_without_ground_truth"]
    if missing:
        command.say(
            "left out of the means, no ground truth: " + ", ".join(missing)
        )
