"""Images by how well their objects were found, and in words why.

At the confidence that the detector is best used with (each class's best F1):
what a person would see who used it.
"""

import collections
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssd_tf.evaluation.metrics import errors
from ssd_tf.evaluation.metrics.inputs import ImageResult

_MAX_REASONS = 3


class Judgement(NamedTuple):
    """One image's confident detections."""

    index: int  # of the image
    kept: np.ndarray  # int [k], the confident detections, best first
    kind: np.ndarray  # int [k], 0 or a kind of `errors`
    skipped: np.ndarray  # bool [k], on an ignored box: neither right nor wrong
    missed: np.ndarray  # bool [M], boxes without a right detection
    f1: float  # 1 where there is nothing to find and nothing was found
    num_right: int  # boxes that a detection is right on
    num_wrong: int  # detections and boxes
    reason: str  # what is wrong, in words


def judge(
    index: int,
    image: ImageResult,
    class_names: Sequence[str],
    thresholds: np.ndarray,
    iou_threshold: float = 0.5,
) -> Judgement:
    """Judges the detections of at least their class's score.

    Args:
      index: of the image.
      image: with detections and truth.
      class_names: of the classes 1, 2, ...
      thresholds: float [C], by class number.
      iou_threshold: overlap above which a detection is a match.
    """
    found = image.found
    kept = np.flatnonzero(found.scores >= thresholds[found.classes])
    confident = found[kept]
    mistakes = errors.find(confident, image.truth, iou_threshold)
    missed = ~image.truth.ignored & ~mistakes.found
    right = int(mistakes.found.sum())
    num_wrong = int((mistakes.kind > 0).sum() + missed.sum())
    total = 2 * right + num_wrong
    return Judgement(
        index,
        kept,
        mistakes.kind,
        mistakes.skipped,
        missed,
        2 * right / total if total else 1.0,
        right,
        num_wrong,
        _reason(image, confident, mistakes, class_names),
    )


def rank(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Returns worst first: by F1, then by the number of mistakes."""
    return sorted(judgements, key=lambda each: (each.f1, -each.num_wrong))


def worst(judgements: Sequence[Judgement], count: int) -> list[Judgement]:
    """Returns at most `count` images with mistakes, in `rank`'s order."""
    return [each for each in judgements if each.num_wrong][:count]


def best(
    judgements: Sequence[Judgement], count: int, shown: Sequence[Judgement] = ()
) -> list[Judgement]:
    """Returns at most `count` images with detections, best first.

    An image where nothing is and nothing was found is no mistake, but shows
    nothing either.

    Args:
      judgements: of all images.
      count: how many.
      shown: that stand elsewhere.
    """
    elsewhere = {each.index for each in shown}
    found = [
        each
        for each in judgements
        if each.num_right and each.index not in elsewhere
    ]
    return sorted(found, key=lambda each: (-each.f1, -each.num_right))[:count]


def _reason(image, found, mistakes, class_names):
    names = ("", *class_names)
    words = [
        f"{names[label]} missed"
        for label in image.truth.labels[mistakes.missed].tolist()
    ]
    for kind, label, target in zip(
        mistakes.kind, found.classes, mistakes.target, strict=True
    ):
        called = names[label]
        if kind == errors.CLASSIFICATION:
            words.append(f"{names[image.truth.labels[target]]} called {called}")
        elif kind:
            words.append(f"{called} {_WORDS[kind]}")
    counts = collections.Counter(words).most_common()
    shown = [
        f"{number} x {word}" if number > 1 else word
        for word, number in counts[:_MAX_REASONS]
    ]
    rest = sum(number for _, number in counts[_MAX_REASONS:])
    return ", ".join([*shown, *([f"{rest} more"] if rest else [])])


_WORDS = {
    errors.LOCALISATION: "badly placed",
    errors.DUPLICATE: "found twice",
    errors.BACKGROUND: "where nothing is",
    errors.BOTH: "badly placed on another class",
}
