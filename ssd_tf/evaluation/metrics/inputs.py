"""Detections and ground truth of an image, checked once for all metrics.

Boxes are `[ymin, xmin, ymax, xmax]`, relative to the image until an
`ImageResult` has them in pixels. Class 0 is padding, as in every batch of this
package, and is dropped here, so that padded rows can be handed over as they
are.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ssd_tf.detect.results import Detections, to_pixels


class GroundTruth(NamedTuple):
    """Annotated boxes of one image."""

    boxes: np.ndarray  # float64 [M, 4]
    labels: np.ndarray  # int64 [M], 1-based
    difficult: np.ndarray  # bool [M]
    crowd: np.ndarray  # bool [M]
    # float64 [M], square pixels of the original image; NaN: the box's own.
    area: np.ndarray

    @property
    def ignored(self) -> np.ndarray:
        """bool [M]: what VOC neither asks for nor holds against anyone."""
        return self.difficult | self.crowd


class ImageResult(NamedTuple):
    """One evaluated image; boxes in pixels of the original."""

    source_id: str
    height: int
    width: int
    found: Detections  # without names and image size
    truth: GroundTruth

    @property
    def shares(self) -> Detections:
        """The detections with boxes as shares of the image."""
        size = self.height, self.width
        boxes = self.found.boxes / (size * 2)
        return dataclasses.replace(self.found, boxes=boxes, image_size=size)


def image_result(
    source_id: str,
    height: int,
    width: int,
    found: Detections,
    truth: GroundTruth,
) -> ImageResult:
    """Returns an image whose boxes are shares of it.

    Raises:
      ValueError: an image without pixels.
    """
    return ImageResult(
        source_id,
        int(height),
        int(width),
        dataclasses.replace(found, boxes=to_pixels(found.boxes, height, width)),
        truth._replace(boxes=to_pixels(truth.boxes, height, width)),
    )


def check_class_names(class_names: list[str]) -> None:
    """Refuses names that could not be told apart in a table of results.

    Raises:
      ValueError: no names, one name twice, or one called mAP like the mean.
    """
    if not class_names:
        raise ValueError("Expected at least one class name. Received: none")
    if len({"mAP", *class_names}) != len(class_names) + 1:
        raise ValueError(
            "Expected distinct class names, none of them 'mAP'. "
            f"Received: {class_names}"
        )


def detections(
    boxes: ArrayLike,
    scores: ArrayLike,
    classes: ArrayLike,
    num_classes: int,
) -> Detections:
    """Checks one image's detections and sorts them by score.

    Args:
      boxes: float [K, 4].
      scores: float [K].
      classes: integers [K] in 0..num_classes, 0 for padding.
      num_classes: number of classes without background.

    Raises:
      ValueError: lengths that differ, a class out of range, NaN or infinity.
    """
    boxes = _boxes(boxes, "detection boxes")
    scores = _column(scores, boxes, np.float64, "detection scores")
    classes = _column(classes, boxes, np.int64, "detection classes")
    _check_finite(scores, "detection scores")
    _check_range(classes, num_classes, "detection classes")
    order = np.argsort(-scores, kind="stable")
    order = order[classes[order] > 0]
    return Detections(boxes[order], scores[order], classes[order])


def ground_truth(
    boxes: ArrayLike,
    labels: ArrayLike,
    difficult: ArrayLike | None,
    crowd: ArrayLike | None,
    num_classes: int,
    area: ArrayLike | None = None,
) -> GroundTruth:
    """Checks one image's annotated boxes.

    Args:
      boxes: float [M, 4].
      labels: integers [M] in 0..num_classes, 0 for padding.
      difficult: bool [M], or None where no box is.
      crowd: bool [M], or None where no box is.
      num_classes: number of classes without background.
      area: square pixels [M], of a mask for instance; 0 and NaN stand for
        that of the box.

    Raises:
      ValueError: lengths that differ, a label out of range, NaN or infinity.
    """
    boxes = _boxes(boxes, "ground truth boxes")
    labels = _column(labels, boxes, np.int64, "ground truth labels")
    difficult = _flags(difficult, boxes, "difficult")
    crowd = _flags(crowd, boxes, "crowd")
    if area is None:
        area = np.zeros(len(boxes))
    area = _column(area, boxes, np.float64, "area")
    area = np.where(area > 0, area, np.nan)
    _check_range(labels, num_classes, "ground truth labels")
    columns = (boxes, labels, difficult, crowd, area)
    return GroundTruth(*(column[labels > 0] for column in columns))


def _boxes(values: ArrayLike, what: str) -> np.ndarray:
    boxes = np.asarray(values, np.float64)
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"Expected {what} of shape [n, 4]. Received: {boxes.shape}"
        )
    _check_finite(boxes, what)
    return boxes


def _column(
    values: ArrayLike, boxes: np.ndarray, dtype: type, what: str
) -> np.ndarray:
    column = np.asarray(values).astype(dtype)
    if column.shape != (len(boxes),):
        raise ValueError(
            f"Expected {what} of shape [{len(boxes)}], one per box. "
            f"Received: {column.shape}"
        )
    return column


def _flags(values: ArrayLike | None, boxes: np.ndarray, what: str):
    if values is None:
        return np.zeros(len(boxes), bool)
    return _column(values, boxes, np.bool_, what)


def _check_finite(values: np.ndarray, what: str) -> None:
    bad = values.size - np.count_nonzero(np.isfinite(values))
    if bad:
        raise ValueError(
            f"Expected finite {what}. Received: {bad} of {values.size} "
            "numbers are NaN or infinite"
        )


def _check_range(classes: np.ndarray, num_classes: int, what: str) -> None:
    if classes.size and not (
        0 <= classes.min() <= classes.max() <= num_classes
    ):
        raise ValueError(
            f"Expected {what} in 0..{num_classes}. "
            f"Received: {classes.min()}..{classes.max()}"
        )
