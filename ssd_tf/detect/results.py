"""What was found on a picture, and how it is cut, called and counted."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssd_tf.detect.reading import Picture
from ssd_tf.evaluation.metrics.inputs import Detections


class Result(NamedTuple):
    """A picture with its detections."""

    picture: Picture
    # All of them, boxes ymin, xmin, ymax, xmax in [0, 1]; none has a NaN.
    found: Detections
    # A frame of a video with its detections drawn, RGB uint8 [h, w, 3].
    drawn: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.picture.pixels.shape[:2]


def detections_of(batch: Mapping[str, np.ndarray], index: int) -> Detections:
    """One image's detections, best first.

    Args:
      batch: arrays by `runtimes.NAMES`.
      index: of the image.
    """
    count = int(batch["num_detections"][index])
    boxes, scores, classes = (
        np.asarray(batch[f"detection_{name}"][index][:count])
        for name in ("boxes", "scores", "classes")
    )
    # Files of other makers promise nothing.
    sound = np.isfinite(boxes).all(axis=1) & np.isfinite(scores) & (classes > 0)
    order = np.argsort(-scores, kind="stable")
    order = order[sound[order]]
    return Detections(
        boxes[order].astype(np.float64),
        scores[order].astype(np.float64),
        classes[order].astype(np.int64),
    )


def from_score(found: Detections, min_score: float) -> Detections:
    """The detections that score at least so much."""
    kept = found.scores >= min_score
    return Detections(*(column[kept] for column in found))


def class_name(class_names: Sequence[str], label: int) -> str:
    """The name of a class, or its number where it has none."""
    if label <= len(class_names):
        return class_names[label - 1]
    return str(label)


def pixel_boxes(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes in [0, 1] as slices of the image, at least one pixel each.

    Args:
      boxes: float [n, 4].
      height, width: of the image, pixels.

    Returns:
      int64 [n, 4], ymin, xmin, ymax, xmax; what they count from 0 to below.
    """
    size = np.array([height, width])
    edges = np.rint(np.clip(boxes, 0, 1) * np.tile(size, 2)).astype(np.int64)
    low = np.minimum(edges[:, :2], size - 1)
    high = np.maximum(edges[:, 2:], low + 1)
    return np.hstack([low, high])
