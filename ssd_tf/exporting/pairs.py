"""How alike two detectors' answers to the same images are."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ssd_tf import boxes as geometry

# Lower scores need no partner: one at the threshold may fall on either side.
_MIN_SCORE = 0.05
# Boxes as close as this, in shares of the image, are the same box also where
# the image's border has left them no area.
_SAME = 1e-3


class Alike(NamedTuple):
    """What a comparison says."""

    score: float  # largest difference of the scores of a pair
    box: float  # largest difference of the coordinates of a pair
    # Share of the detections from a score of 0.05 on that have a partner.
    matched: float


class _Image(NamedTuple):
    boxes: np.ndarray  # [n, 4]
    scores: np.ndarray  # [n]
    classes: np.ndarray  # [n]


def compare(
    expected: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
    overlap: float,
) -> Alike:
    """Pairs the detections of images, each with its best partner.

    Args:
      expected, found: detections of the same images, padded batches.
      overlap: IoU from which two of one class are a pair.
    """
    sides = []
    for index in range(len(expected["num_detections"])):
        one, other = _image(expected, index), _image(found, index)
        overlaps = _overlaps(one, other)
        sides.append(_pair(one, other, overlaps, overlap))
        sides.append(_pair(other, one, overlaps.T, overlap))
    scores, boxes, matched, counted = (
        np.array(x) for x in zip(*sides, strict=True)
    )
    share = matched.sum() / counted.sum() if counted.any() else 1.0
    return Alike(float(scores.max()), float(boxes.max()), float(share))


def _image(found, index):
    count = int(found["num_detections"][index])
    names = ("boxes", "scores", "classes")
    return _Image(*(found[f"detection_{x}"][index][:count] for x in names))


def _overlaps(one, other):
    """[n, m]; 0 for different classes."""
    distances = np.abs(one.boxes[:, None] - other.boxes).max(axis=-1)
    overlaps = np.maximum(
        geometry.iou_matrix(one.boxes, other.boxes), 1 - distances / _SAME
    )
    return np.where(one.classes[:, None] == other.classes, overlaps, 0.0)


def _pair(these, those, overlaps, least):
    """Largest differences of scores and boxes, how many pairs, how many."""
    real = these.scores >= _MIN_SCORE
    if not (real.any() and overlaps.shape[1]):
        return 0.0, 0.0, 0, real.sum()
    partner = overlaps.argmax(axis=1)
    paired = real & (overlaps.max(axis=1) >= least)
    partner = partner[paired]
    scores = np.abs(these.scores[paired] - those.scores[partner])
    boxes = np.abs(these.boxes[paired] - those.boxes[partner])
    return (
        scores.max(initial=0.0),
        boxes.max(initial=0.0),
        paired.sum(),
        real.sum(),
    )
