"""How alike two detectors' answers to the same images are."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ssd_tf.multibox import boxes as geometry

# Detections whose score is less than so much above the threshold need no
# partner: one at the threshold may fall on either side.
MARGIN = 0.04
# Unless fewer of the expected ones are above it.
_ENOUGH = 20
# Boxes as close as this, in shares of the image, are the same box also where
# the image's border has left them no area.
_SAME = 1e-3


class Alike(NamedTuple):
    """What a comparison says."""

    score: float  # largest difference of the scores of a pair
    box: float  # largest difference of the coordinates of a pair
    matched: float  # share of the detections that have a partner
    mean_score: float  # mean difference of the scores of a pair
    compared: int  # detections, of both sides


class _Image(NamedTuple):
    boxes: np.ndarray  # [n, 4]
    scores: np.ndarray  # [n]
    classes: np.ndarray  # [n]


def least_score(
    expected: Mapping[str, np.ndarray], threshold: float, margin: float
) -> float:
    """From which score on detections are compared.

    Args:
      expected: detections, padded batches.
      threshold: smallest score that was asked for.
      margin: what a score may be off without being wrong. Nearer to the
        threshold nothing is compared, however few there are.

    Returns:
      0.05 with a threshold of 0.01; less where a net has found little.
    """
    usual = threshold + MARGIN
    scores = np.sort(expected["detection_scores"], axis=None)[::-1]
    enough = scores[_ENOUGH - 1] if len(scores) >= _ENOUGH else 0.0
    return float(min(usual, max(enough, threshold + min(margin, MARGIN))))


def compare(
    expected: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
    overlap: float,
    least: float = 0.05,
) -> Alike:
    """Pairs the detections of images, each with its best partner.

    Args:
      expected, found: detections of the same images, padded batches.
      overlap: IoU from which two of one class are a pair.
      least: score from which on a detection needs a partner.
    """
    sides = []
    for index in range(len(expected["num_detections"])):
        one, other = _image(expected, index), _image(found, index)
        overlaps = _overlaps(one, other)
        sides.append(_pair(one, other, overlaps, overlap, least))
        sides.append(_pair(other, one, overlaps.T, overlap, least))
    scores, boxes, counted = zip(*sides, strict=True)
    scores, boxes = np.concatenate(scores), np.concatenate(boxes)
    compared = int(sum(counted))
    return Alike(
        float(scores.max(initial=0.0)),
        float(boxes.max(initial=0.0)),
        len(scores) / compared if compared else 1.0,
        float(scores.mean()) if len(scores) else 0.0,
        compared,
    )


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


def _pair(these, those, overlaps, overlap, least):
    """Differences of scores [p] and boxes [p, 4] of pairs, and how many of
    these need a partner."""
    real = these.scores >= least
    if not (real.any() and overlaps.shape[1]):
        return np.zeros(0), np.zeros((0, 4)), real.sum()
    paired = real & (overlaps.max(axis=1) >= overlap)
    partner = overlaps.argmax(axis=1)[paired]
    return (
        np.abs(these.scores[paired] - those.scores[partner]),
        np.abs(these.boxes[paired] - those.boxes[partner]),
        real.sum(),
    )
