"""A resampled average precision is that of the images, drawn again."""

import evaluated
import numpy as np
import pytest
from evaluated import judged_of, official

from ssd_tf.evaluation.metrics import bootstrap, coco, outcomes, voc

NAMES = evaluated.NAMES


@pytest.mark.parametrize("seed", range(6))
def test_weights_count_as_copies(seed):
    # Where two scores of an image are equal, copies are ranked otherwise.
    images = evaluated.random_images(seed, ties=False)
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 4, (3, len(images)))
    samples = bootstrap.sample(judged_of(images), weights.T)
    for row, weight in enumerate(weights):
        copies = [
            image
            for image, times in zip(images, weight, strict=True)
            for _ in range(times)
        ]
        expected = official(copies)
        for name, values in samples.items():
            if expected[name] is None:
                assert np.isnan(values[row])
            else:
                assert values[row] == pytest.approx(expected[name], abs=1e-12)


def test_in_steps_as_at_once(monkeypatch):
    images = evaluated.random_images(1)
    (weights,) = bootstrap.draws(len(images), 50, seed=0)
    judged = judged_of(images)
    at_once = bootstrap.sample(judged, weights)
    monkeypatch.setattr(outcomes, "_CHUNK", 100)
    for name, values in bootstrap.sample(judged, weights).items():
        np.testing.assert_array_equal(values, at_once[name])


@pytest.mark.parametrize(("number", "size"), [(7, 3), (1, 5), (10, 3), (9, 4)])
def test_parts_are_alike_and_are_all(number, size):
    found = outcomes.parts(number, size)
    pieces = [list(range(number))[each] for each in found]
    assert sum(pieces, []) == list(range(number))
    lengths = {len(piece) for piece in pieces}
    assert max(lengths) <= size and max(lengths) - min(lengths) <= 1


def test_without_detections_the_average_is_0_and_without_truth_none():
    box = [0, 0, 10, 10]
    judged = judged_of([evaluated.image(truth=[(box, 1)]), evaluated.image()])
    cat = judged.voc["cat"]
    weights = np.array([[1, 0], [1, 2]])
    for recalls in (None, voc.RECALL_THRESHOLDS, coco.RECALLS):
        values = outcomes.resampled(cat, weights, recalls)
        np.testing.assert_array_equal(values, [0, np.nan])


def test_curve_counted_by_hand():
    # Hit, miss, hit of 4: precision 1, 1/2, 2/3 at recall 1/4, 1/4, 1/2.
    curve = outcomes.precision_recall(np.array([True, False, True]), 4)
    np.testing.assert_allclose(
        curve, [[1, 1 / 2, 2 / 3], [1 / 4, 1 / 4, 1 / 2]]
    )
    assert outcomes.area_under(*curve) == pytest.approx(1 / 4 + 1 / 4 * 2 / 3)
    recalls = np.array([0, 0.25, 0.3, 0.5, 0.6])
    expected = (1 + 1 + 2 / 3 + 2 / 3 + 0) / 5
    assert outcomes.at_recalls(*curve, recalls) == pytest.approx(expected)
