"""Average precision by the size that objects have for the network.

A photo of 4000 pixels is 300 pixels for an SSD300: COCO's sizes, taken in the
original, say little of what the network could see. Here boxes are measured at
the network's input.
"""

from collections.abc import Sequence

import numpy as np

from ssd_tf.evaluation.metrics import voc
from ssd_tf.evaluation.metrics.inputs import ImageResult
from ssd_tf.evaluation.metrics.outcomes import Tally, area_under

# Sides in pixels of the input; a box is measured by the root of its area.
EDGES = (0.0, 16.0, 32.0, 96.0, float("inf"))
NAMES = ("tiny", "small", "medium", "large")
WORDS = {
    "tiny": "below 16 px",
    "small": "16 to 32 px",
    "medium": "32 to 96 px",
    "large": "from 96 px",
}


def size_of(
    boxes: np.ndarray, image: ImageResult, input_size: tuple[int, int]
) -> np.ndarray:
    """Returns index int [n] in `NAMES` of an image's boxes [n, 4], pixels.

    Args:
      boxes: of the image, or detections on it.
      image: for its size.
      input_size: height and width that it is resized to, pixels.
    """
    scale = np.divide(input_size, (image.height, image.width))
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0) * scale
    return np.searchsorted(EDGES, np.sqrt(sides.prod(axis=1)), "right") - 1


def average_precisions(
    images: Sequence[ImageResult],
    class_names: Sequence[str],
    input_size: tuple[int, int],
    iou_threshold: float = 0.5,
) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Returns VOC's area under the curve, by size and class.

    As in COCO, boxes of other sizes are ignored, and so are wrong detections
    of other sizes.

    Args:
      images: of a whole data set.
      class_names: of the classes 1, 2, ...
      input_size: height and width of the network's input, pixels.
      iou_threshold: overlap above which a detection is a match.

    Returns:
      By size, and then by class name and `mAP`: `AP`, None where there is no
      such box, and `boxes`, their number.
    """
    return {
        name: _of_size(images, class_names, input_size, iou_threshold, index)
        for index, name in enumerate(NAMES)
    }


def _of_size(images, class_names, input_size, iou_threshold, size):
    tally = Tally(len(class_names))
    for image in images:
        found, truth = image.found, image.truth
        other = size_of(truth.boxes, image, input_size) != size
        truth = truth._replace(difficult=truth.difficult | other)
        hits, skipped = voc.judge(found, truth, iou_threshold)
        skipped |= ~hits & (size_of(found.boxes, image, input_size) != size)
        tally.add(
            found.scores[~skipped],
            found.classes[~skipped],
            hits[~skipped],
            truth.labels[~truth.ignored],
        )
    result = {}
    for name, outcomes in zip(class_names, tally.outcomes(), strict=True):
        boxes = int(outcomes.num_ground_truth.sum())
        curve = voc.curve(outcomes) if boxes else None
        average = area_under(curve.precision, curve.recall) if boxes else None
        result[name] = {"AP": average, "boxes": boxes}
    present = [x["AP"] for x in result.values() if x["AP"] is not None]
    result["mAP"] = {
        "AP": float(np.mean(present)) if present else None,
        "boxes": sum(each["boxes"] for each in result.values()),
    }
    return result
