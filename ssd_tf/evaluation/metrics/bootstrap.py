"""Confidence intervals of mean average precisions, by resampled images.

The images are drawn again with replacement, as many as there are, and the
metrics computed anew (Efron, 1979; the percentile interval). What is drawn is
images, not detections, because the detections of an image are not independent.
Two models that saw the same images are compared on the same draws.
"""

import os
from collections.abc import Iterator, Mapping
from concurrent import futures
from typing import NamedTuple

import numpy as np

from ssd_tf.evaluation.metrics import coco, voc
from ssd_tf.evaluation.metrics.outcomes import Outcomes, parts, resampled

LEVEL = 0.95
# Draws that are held at once, images times samples: 32 MB while they are made.
_CHUNK = 4_000_000
# Each holds a few arrays of a class of its own.
_MAX_THREADS = 8


class Judged(NamedTuple):
    """All that the means depend on, by class name."""

    voc: Mapping[str, Outcomes]
    coco: Mapping[str, Outcomes]


class Interval(NamedTuple):
    """Bounds that `LEVEL` of the samples lie between."""

    low: float
    high: float


def draws(num_images: int, num_samples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields how often each image is in each sample, in parts.

    The first of all samples is the images as they are. However many come at a
    time, the draws are those of the seed.

    Args:
      num_images: N, at least 1.
      num_samples: that are drawn.
      seed: of the draws.

    Yields:
      int [N, S], in the smallest type that holds them.
    """
    generator = np.random.default_rng(seed)
    share = np.full(num_images, 1 / num_images)
    for chunk in parts(num_samples + 1, max(3, _CHUNK // num_images)):
        number = chunk.stop - max(chunk.start, 1)
        drawn = generator.multinomial(num_images, share, size=number)
        if chunk.start == 0:
            drawn = np.concatenate([np.ones((1, num_images), int), drawn])
        dtype = np.min_scalar_type(drawn.max())
        yield np.ascontiguousarray(drawn.T, dtype)


def sample(judged: Judged, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Returns metrics of every sample, by their keys in metrics.json.

    Args:
      judged: of all images.
      weights: int [N, S], from `draws`; a column of ones gives the metrics.

    Returns:
      float64 [S] for `AP_VOC07/mAP`, `AP_VOC12/mAP` and `COCO/AP`, and for
      `AP_VOC12/NAME` of the classes with ground truth. A mean is over the
      classes that a sample has ground truth of.
    """
    area = _by_class(judged.voc, weights, None)
    points = _by_class(judged.voc, weights, voc.RECALL_THRESHOLDS)
    over_overlaps = _by_class(judged.coco, weights, coco.RECALLS)
    return {
        "AP_VOC07/mAP": _mean(points, weights),
        "AP_VOC12/mAP": _mean(area, weights),
        "COCO/AP": _mean(over_overlaps, weights),
        **{f"AP_VOC12/{name}": values for name, values in area.items()},
    }


def _by_class(outcomes, weights, recalls):
    present = {
        name: of_class
        for name, of_class in outcomes.items()
        if of_class.num_ground_truth.any()
    }
    # NumPy computes on arrays of this size without the interpreter's lock.
    threads = min(os.cpu_count() or 1, _MAX_THREADS)
    with futures.ThreadPoolExecutor(threads) as pool:
        averages = pool.map(
            lambda each: resampled(each, weights, recalls), present.values()
        )
        return dict(zip(present, averages, strict=True))


def _mean(by_class, weights):
    if not by_class:
        return np.full(weights.shape[1], np.nan)
    table = np.array(list(by_class.values()))  # [C, S]
    present = ~np.isnan(table)
    total = np.where(present, table, 0).sum(axis=0)
    count = present.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def interval(samples: np.ndarray, value: float) -> Interval | None:
    """Returns the percentile interval, moved by the bias of the samples.

    An image that is drawn twice ranks its detections side by side, which makes
    the samples' mean a little larger than the value that they are to explain.

    Args:
      samples: float [S]; NaN is left out.
      value: of the images as they are.
    """
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return None
    edges = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    bias = samples.mean() - value
    return Interval(*(np.quantile(samples, edges) - bias).tolist())


def intervals(
    judged: Judged, num_images: int, num_samples: int, seed: int = 0
) -> dict[str, Interval]:
    """Returns the interval of every metric of `sample` that has one."""
    samples = _with_all(judged, num_images, num_samples, seed)
    found = {
        name: interval(values[1:], values[0])
        for name, values in samples.items()
    }
    # Moved by the bias, it may reach beyond what the metric can be.
    return {
        name: Interval(max(0.0, each.low), min(1.0, each.high))
        for name, each in found.items()
        if each
    }


def _with_all(judged, num_images, num_samples, seed):
    """`sample` of all draws, with the images as they are in front."""
    if not num_images:
        return {}
    chunks = [
        sample(judged, weights)
        for weights in draws(num_images, num_samples, seed)
    ]
    return {
        name: np.concatenate([chunk[name] for chunk in chunks])
        for name in chunks[0]
    }


class Difference(NamedTuple):
    """One metric of two models on the same images."""

    first: float
    second: float
    difference: float  # second - first
    interval: Interval | None  # of the difference; None without samples
    share_better: float | None  # of the samples in which the second is better


def compare(
    first: Judged,
    second: Judged,
    num_images: int,
    num_samples: int,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compares two models on the same draws of the images."""
    firsts, seconds = (
        _with_all(judged, num_images, num_samples, seed)
        for judged in (first, second)
    )
    compared = {}
    for name in [name for name in firsts if name in seconds]:
        gain = seconds[name] - firsts[name]
        if not np.isnan(gain[0]):
            found = interval(gain[1:], gain[0])
            compared[name] = Difference(
                float(firsts[name][0]),
                float(seconds[name][0]),
                float(gain[0]),
                found,
                float(np.mean(gain[1:] > 0)) if found else None,
            )
    return compared
