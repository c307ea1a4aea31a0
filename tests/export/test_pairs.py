"""How alike two answers are, by numbers computed by hand."""

import numpy as np
import pytest

from ssd_tf.export import verify

BOX = [0.1, 0.1, 0.5, 0.5]


def answer(*detections, padding=2):
    """A batch of one image; detections are (box, score, class)."""
    boxes, scores, classes = zip(*detections, strict=True)
    count = len(scores)

    def padded(values, *shape):
        values = np.reshape(np.array(values, np.float32), (count, *shape))
        return np.concatenate([values, np.zeros((padding, *shape))])[None]

    return {
        "detection_boxes": padded(boxes, 4),
        "detection_scores": padded(scores),
        "detection_classes": padded(classes).astype(int),
        "num_detections": np.array([count]),
    }


def moved(by):
    """The box, moved down."""
    return [0.1 + by, 0.1, 0.5 + by, 0.5]


def test_the_same_is_the_same_in_any_order():
    one = answer((BOX, 0.9, 1), (moved(0.3), 0.8, 2))
    other = answer((moved(0.3), 0.8, 2), (BOX, 0.9, 1), padding=7)
    assert verify.compare(one, other, 0.9) == (0.0, 0.0, 1.0, 0.0, 4)


def test_differences_are_the_largest_of_a_pair():
    one = answer((BOX, 0.9, 1), (moved(0.4), 0.5, 2))
    other = answer((moved(0.01), 0.85, 1), (moved(0.4), 0.5, 2))
    found = verify.compare(one, other, 0.9)
    assert found.score == pytest.approx(0.05, abs=1e-6)
    assert found.box == pytest.approx(0.01, abs=1e-6)
    assert found.matched == 1.0
    # Of two pairs, from both sides.
    assert found.mean_score == pytest.approx(0.025, abs=1e-6)
    assert found.compared == 4


def test_less_overlap_or_another_class_is_no_pair():
    one = answer((BOX, 0.9, 1), (moved(0.4), 0.5, 2))
    # Moved by a tenth of its height: IoU 0.9 / 1.1 = 0.818.
    other = answer((moved(0.04), 0.9, 1), (moved(0.4), 0.5, 1))
    assert verify.compare(one, other, 0.8).matched == 0.5
    assert verify.compare(one, other, 0.82).matched == 0.0


def test_what_only_one_has_counts_from_both_sides():
    one = answer((BOX, 0.9, 1))
    other = answer((BOX, 0.9, 1), (moved(0.4), 0.5, 1), (moved(0.4), 0.04, 2))
    assert verify.compare(one, other, 0.9).matched == pytest.approx(2 / 3)
    assert verify.compare(other, one, 0.9).matched == pytest.approx(2 / 3)


def test_boxes_without_area_are_paired():
    edge = [0.0, 0.2, 0.0, 0.4]
    found = verify.compare(answer((edge, 0.9, 1)), answer((edge, 0.9, 1)), 0.9)
    assert found == (0.0, 0.0, 1.0, 0.0, 2)


def test_nothing_found_twice_is_alike_and_once_is_not():
    nothing = {
        "detection_boxes": np.zeros((1, 3, 4)),
        "detection_scores": np.zeros((1, 3)),
        "detection_classes": np.zeros((1, 3), int),
        "num_detections": np.array([0]),
    }
    assert verify.compare(nothing, nothing, 0.9) == (0.0, 0.0, 1.0, 0.0, 0)
    assert verify.compare(nothing, answer((BOX, 0.9, 1)), 0.9).matched == 0.0
    assert verify.compare(answer((BOX, 0.9, 1)), nothing, 0.9).matched == 0.0


def test_nan_is_no_small_difference():
    broken = answer((BOX, np.nan, 1))
    found = verify.compare(answer((BOX, 0.9, 1)), broken, 0.9)
    assert not found.score <= 1


def test_lower_scores_count_where_there_are_few_others():
    def least(*scores, margin=1e-4):
        return verify.least_score(
            answer(*((BOX, score, 1) for score in scores)), 0.01, margin
        )

    sure = [0.9] * 20
    assert least(*sure) == pytest.approx(0.05)
    assert least(*sure, 0.02) == pytest.approx(0.05)
    # The twentieth best one.
    assert least(*sure[1:], 0.03, 0.02) == pytest.approx(0.03)
    assert least(0.03) == pytest.approx(0.0101)
    # What is less than the margin above the threshold may be missing.
    assert least(0.03, margin=0.015) == pytest.approx(0.025)
    assert least(0.03, margin=0.5) == pytest.approx(0.05)


def test_a_detection_below_the_least_needs_no_partner():
    one = answer((BOX, 0.04, 1))
    other = answer((moved(0.4), 0.04, 1))
    assert verify.compare(one, other, 0.9).compared == 0
    assert verify.compare(one, other, 0.9, least=0.02).matched == 0.0
