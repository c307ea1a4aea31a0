"""Confusions between classes, and with the background."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssd_tf.detect.results import Detections
from ssd_tf.evaluation.metrics import voc
from ssd_tf.evaluation.metrics.inputs import GroundTruth, ImageResult
from ssd_tf.multibox.boxes import iou_matrix

BACKGROUND = 0


class Pairs(NamedTuple):
    """Matches of detections and boxes of one image; -1 where unmatched."""

    kept: np.ndarray  # int [k], detections that are confident enough
    box: np.ndarray  # int [k], the box of each
    skipped: np.ndarray  # bool [k], on an ignored box and nothing else
    missed: np.ndarray  # bool [M], boxes without a detection


def pair(
    found: Detections,
    truth: GroundTruth,
    thresholds: np.ndarray,
    iou_threshold: float = 0.5,
) -> Pairs:
    """Pairs the confident detections of an image with its boxes, one to one.

    By falling overlap; those of the same class first, so that two objects of
    different classes in one place are not taken for each other.

    Args:
      found: detections.
      truth: annotated boxes; who is left over on an ignored one is skipped.
      thresholds: float [C], by class number, the smallest score that counts.
      iou_threshold: overlap above which two can be paired.
    """
    kept = np.flatnonzero(found.scores >= thresholds[found.classes])
    boxes = found.boxes[kept]
    iou = iou_matrix(boxes, truth.boxes)  # [k, M]
    counts = ~truth.ignored
    same = found.classes[kept][:, None] == truth.labels
    box = np.full(len(kept), -1)
    for allowed in (same, ~same):
        _pair_greedily(iou * (allowed & counts), iou_threshold, box)
    cover = np.maximum(iou * ~counts, voc.crowd_cover(boxes, truth) * same)
    on_ignored = (cover > iou_threshold).any(axis=1)
    missed = counts.copy()
    missed[box[box >= 0]] = False
    return Pairs(kept, box, on_ignored & (box < 0), missed)


def _pair_greedily(iou, iou_threshold, box):
    """Writes into `box` the best pairs of those who are still free."""
    rows, columns = np.nonzero(iou > iou_threshold)
    order = np.argsort(-iou[rows, columns], kind="stable")
    taken = set(box[box >= 0].tolist())
    for row, column in zip(
        rows[order].tolist(), columns[order].tolist(), strict=True
    ):
        if box[row] < 0 and column not in taken:
            box[row] = column
            taken.add(column)


def matrix(
    images: Sequence[ImageResult],
    thresholds: np.ndarray,
    iou_threshold: float = 0.5,
) -> np.ndarray:
    """Counts int [C, C]: row: what it is, column: what it is called.

    Class 0 is the background: row 0 holds detections of nothing, column 0
    boxes that were missed, and [0, 0] is 0.

    Args:
      images: of a whole data set.
      thresholds: float [C], by class number, the smallest score that counts.
      iou_threshold: overlap above which a detection is about a box.
    """
    size = len(thresholds)
    counts = np.zeros((size, size), int)
    for image in images:
        pairs = pair(image.found, image.truth, thresholds, iou_threshold)
        labels = np.append(image.truth.labels, BACKGROUND)
        called = image.found.classes[pairs.kept]
        counted = ~pairs.skipped
        np.add.at(counts, (labels[pairs.box][counted], called[counted]), 1)
        np.add.at(counts, (image.truth.labels[pairs.missed], BACKGROUND), 1)
    return counts
