"""Intervals and comparisons over resampled images."""

import tracemalloc

import evaluated
import numpy as np
import pytest
from evaluated import judged_of, official

from ssd_tf.evaluation.metrics import bootstrap
from ssd_tf.evaluation.metrics.outcomes import Outcomes

A, B = [0, 0, 20, 20], [50, 50, 80, 80]


def with_hit(score=0.9):
    return evaluated.image([(A, score, 1)], [(A, 1)])


def with_miss():
    return evaluated.image(truth=[(A, 1)])


def test_every_sample_draws_as_many_images_as_there_are():
    (weights,) = bootstrap.draws(7, 500, seed=3)
    assert weights.shape == (7, 501) and weights.dtype == np.uint8
    np.testing.assert_array_equal(weights.sum(axis=0), 7)
    np.testing.assert_array_equal(weights[:, 0], 1)
    # 500 * 7 draws: each image 500 times, give or take 5 standard deviations.
    assert np.abs(
        weights[:, 1:].sum(axis=1, dtype=int) - 500
    ).max() < 5 * np.sqrt(500)


def test_draws_come_in_chunks_as_they_come_at_once(monkeypatch):
    judged = judged_of(evaluated.random_images(0, count=30))
    (at_once,) = bootstrap.draws(30, 100, seed=3)
    expected = bootstrap.intervals(judged, 30, 100, seed=3)
    # Those of one call of the generator, as ever.
    drawn = np.random.default_rng(3).multinomial(30, [1 / 30] * 30, size=100)
    np.testing.assert_array_equal(at_once[:, 1:].T, drawn)
    monkeypatch.setattr(bootstrap, "_CHUNK", 30 * 25)
    chunks = list(bootstrap.draws(30, 100, seed=3))
    assert [x.shape for x in chunks] == [(30, 20), *[(30, 20)] * 3, (30, 21)]
    np.testing.assert_array_equal(np.concatenate(chunks, axis=1), at_once)
    assert bootstrap.intervals(judged, 30, 100, seed=3) == expected


def test_images_by_the_thousand_fit(monkeypatch):
    """What is held does not grow with the images times the samples."""
    number, samples = 20_000, 400
    rng = np.random.default_rng(0)
    scores = np.sort(rng.random(50))[::-1]
    of_class = Outcomes(
        scores,
        rng.integers(0, number, 50).astype(np.int32),
        rng.random((1, 50)) < 0.5,
        np.zeros((1, 50), bool),
        rng.integers(0, 2, number).astype(np.int32),
    )
    judged = bootstrap.Judged({"a": of_class}, {"a": of_class})
    monkeypatch.setattr(bootstrap, "_CHUNK", 400_000)
    tracemalloc.start()
    try:
        assert bootstrap.intervals(judged, number, samples)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 8 million draws, of which 400 thousand are there at a time.
    assert peak < 20e6


def test_the_seed_decides():
    judged = judged_of(evaluated.random_images(0))
    first, again, other = (
        bootstrap.intervals(judged, 12, 200, seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_images_that_are_all_alike_leave_no_doubt():
    found = bootstrap.intervals(judged_of([with_hit()] * 5), 5, 100)
    for name in ("AP_VOC07/mAP", "AP_VOC12/mAP", "COCO/AP", "AP_VOC12/cat"):
        assert found[name] == pytest.approx((1, 1))
    assert "AP_VOC12/dog" not in found


def test_recall_of_half_the_images_is_as_sure_as_a_coin():
    # Half of 100 images are found, without a wrong detection: AP is recall, a
    # mean of 100 coins of standard deviation 1/2, so the interval is that of
    # the binomial, 0.5 +- 1.96 * 0.05, up to the noise of 4000 samples.
    judged = judged_of([with_hit(), with_miss()] * 50)
    low, high = bootstrap.intervals(judged, 100, 4000)["AP_VOC12/cat"]
    assert low == pytest.approx(0.402, abs=0.015)
    assert high == pytest.approx(0.598, abs=0.015)


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_surrounds_the_value(seed):
    images = evaluated.random_images(seed, count=30)
    expected = official(images)
    for name, (low, high) in bootstrap.intervals(
        judged_of(images), 30, 300
    ).items():
        assert low <= expected[name] <= high, name


def test_no_interval_leaves_what_a_metric_can_be():
    judged = judged_of([with_hit(), with_miss(), with_miss()])
    for low, high in bootstrap.intervals(judged, 3, 200).values():
        assert 0 <= low < 1 / 3 < high <= 1


def test_no_images_no_intervals():
    assert bootstrap.intervals(judged_of([]), 0, 100) == {}
    assert bootstrap.interval(np.array([np.nan]), 0.5) is None


def test_a_model_compared_with_itself_is_neither_better_nor_worse():
    judged = judged_of(evaluated.random_images(3))
    for each in bootstrap.compare(judged, judged, 12, 100).values():
        assert each.difference == 0
        assert each.interval == (0, 0)
        assert each.share_better == 0


def test_pairing_sees_what_two_intervals_cannot():
    # The second model finds 5 of 100 boxes more and loses none.
    first = [with_hit()] * 50 + [with_miss()] * 50
    second = [with_hit()] * 55 + [with_miss()] * 45
    a, b = judged_of(first), judged_of(second)
    gain = bootstrap.compare(a, b, 100, 1000)["AP_VOC12/mAP"]
    assert gain.first == pytest.approx(0.5)
    assert gain.second == pytest.approx(0.55)
    assert gain.difference == pytest.approx(0.05)
    assert 0 < gain.interval.low < 0.05 < gain.interval.high
    assert gain.share_better > 0.98
    apart = [bootstrap.intervals(x, 100, 1000)["AP_VOC12/mAP"] for x in (a, b)]
    assert apart[0].high > apart[1].low
    back = bootstrap.compare(b, a, 100, 1000)["AP_VOC12/mAP"]
    assert back.interval == pytest.approx(
        (-gain.interval.high, -gain.interval.low)
    )
