"""The best threshold of a class, and the calibration of its scores."""

from typing import Any, NamedTuple

import numpy as np

from ssd_tf.evaluation.metrics import voc
from ssd_tf.evaluation.metrics.outcomes import Outcomes

NUM_BINS = 10


class OperatingPoint(NamedTuple):
    """A class's detections of at least a score."""

    threshold: float
    precision: float
    recall: float
    f1: float


def best_f1(curve: voc.Curve) -> OperatingPoint | None:
    """Returns the score whose detections have the best F1; None without a hit.

    F1 is the harmonic mean of precision and recall. Of equal ones the highest
    score is taken.
    """
    # Equal scores are in or out together: a cut is behind the last of them.
    last = np.append(np.diff(curve.scores) != 0, True)[: len(curve.scores)]
    scores, precision, recall = (
        column[last] for column in (curve.scores, curve.precision, curve.recall)
    )
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    if not f1.any():
        return None
    best = int(np.argmax(f1))
    columns = (scores, precision, recall, f1)
    return OperatingPoint(*(float(column[best]) for column in columns))


def calibration(outcomes: Outcomes) -> dict[str, Any]:
    """Computes the precision by score (Guo et al., 2017, section 2).

    Args:
      outcomes: of a class, at one overlap.

    Returns:
      `bins`: for each of `NUM_BINS` equal ranges of scores in [0, 1] that has
      detections, `from`, `to`, `count`, `score` (mean) and `precision`;
      `error`: the expected calibration error, the mean of |score - precision|
      over detections. Without detections, or with scores that are no shares of
      one, there are no bins and the error is None.
    """
    scores, hits = outcomes.scores, outcomes.hits[0]
    if not len(scores) or scores[0] > 1 or scores[-1] < 0:
        return {"bins": [], "error": None}
    number = np.minimum((scores * NUM_BINS).astype(int), NUM_BINS - 1)
    counts = np.bincount(number, minlength=NUM_BINS)
    mean_score = np.bincount(number, scores, NUM_BINS) / np.maximum(counts, 1)
    precision = np.bincount(number, hits, NUM_BINS) / np.maximum(counts, 1)
    gaps = np.abs(mean_score - precision) * counts
    return {
        "bins": [
            {
                "from": k / NUM_BINS,
                "to": (k + 1) / NUM_BINS,
                "count": int(counts[k]),
                "score": float(mean_score[k]),
                "precision": float(precision[k]),
            }
            for k in np.flatnonzero(counts)
        ],
        "error": float(gaps.sum() / len(scores)),
    }
