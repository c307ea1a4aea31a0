"""The best F1 and the calibration, counted by hand."""

import numpy as np
import pytest

from ssd_tf.evaluation.metrics import operating_point, voc
from ssd_tf.evaluation.metrics.outcomes import Outcomes


def outcomes(scores, hits, total=4):
    hits = np.array(hits, bool)
    return Outcomes(
        np.array(scores, np.float64),
        np.zeros(len(scores), np.int32),
        hits[None],
        np.zeros_like(hits)[None],
        np.array([total], np.int32),
    )


def best(scores, hits, total=4):
    return operating_point.best_f1(voc.curve(outcomes(scores, hits, total)))


def test_best_f1_by_hand():
    # F1 of the first 1, 2, 3, 4: 2/5, 4/6, 4/7, 6/8.
    found = best([0.9, 0.8, 0.7, 0.6], [True, True, False, True])
    assert found == pytest.approx((0.6, 3 / 4, 3 / 4, 3 / 4))
    # With 3 misses behind the last hit: 6/11, less than 4/6.
    found = best(
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [True, True] + [False] * 3 + [True]
    )
    assert found == pytest.approx((0.8, 1, 1 / 2, 2 / 3))


def test_equal_scores_are_in_or_out_together():
    # Between the two of .8 nobody can cut: F1 4/6 is that of no score.
    found = best([0.9, 0.8, 0.8], [True, True, False])
    assert found == pytest.approx((0.8, 2 / 3, 1 / 2, 4 / 7))


def test_without_a_hit_there_is_no_best():
    assert best([0.9, 0.8], [False, False]) is None
    assert best([], []) is None


def test_calibration_by_hand():
    found = operating_point.calibration(
        outcomes([1.0, 0.95, 0.12, 0.1], [True, False, False, True])
    )
    last, first = (
        {"from": 0.9, "to": 1.0, "count": 2, "score": 0.975, "precision": 0.5},
        {"from": 0.1, "to": 0.2, "count": 2, "score": 0.11, "precision": 0.5},
    )
    assert found["bins"] == [pytest.approx(first), pytest.approx(last)]
    assert found["error"] == pytest.approx((0.475 + 0.39) / 2)


def test_scores_that_are_probabilities_have_no_error():
    rng = np.random.default_rng(0)
    scores = np.sort(rng.random(100_000))[::-1]
    found = operating_point.calibration(
        outcomes(scores, rng.random(100_000) < scores)
    )
    # Ten bins of 10,000: the mean of ten |errors| of standard deviation .005.
    assert found["error"] < 0.01


@pytest.mark.parametrize("scores", [[7.0, 0.5], [0.5, -3.0]])
def test_scores_that_are_no_shares_have_no_calibration(scores):
    found = operating_point.calibration(outcomes(scores, [True, False]))
    assert found == {"bins": [], "error": None}


def test_no_detections_no_calibration():
    assert operating_point.calibration(outcomes([], [])) == {
        "bins": [],
        "error": None,
    }
