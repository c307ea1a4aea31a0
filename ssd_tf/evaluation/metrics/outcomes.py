"""The detections of one class, ranked and judged, and what follows from them.

All average precisions of this package, of VOC and of COCO, of all images and
of a bootstrap sample, are functions of these few arrays. A sample of the
images, drawn with replacement, is a weight an image: how often it was drawn.
"""

import itertools
from typing import NamedTuple

import numpy as np

# Numbers of one array of a step of the bootstrap: 64 MB at most.
_CHUNK = 8_000_000


class Outcomes(NamedTuple):
    """One class over N images, judged at T overlaps."""

    scores: np.ndarray  # float64 [n], falling; ties in the images' order
    images: np.ndarray  # int32 [n], of 0..N-1
    hits: np.ndarray  # bool [T, n], true positives, none of them ignored
    ignored: np.ndarray  # bool [T, n], neither right nor wrong
    num_ground_truth: np.ndarray  # int32 [N], boxes to be found in each image


class Tally:
    """Collects judged detections, image by image, at one overlap.

    Holds 21 bytes a detection and 4 a class and image.
    """

    def __init__(self, num_classes: int):
        """Starts with no images; `num_classes` without the background."""
        self._num_classes = num_classes
        # Empty parts first: there may come no image at all.
        self._scores, self._hits = [np.empty(0)], [np.empty(0, bool)]
        self._classes, self._images = [np.empty(0, int)], [np.empty(0, int)]
        self._num_ground_truth = []  # an image: int32 [C - 1]

    def add(
        self,
        scores: np.ndarray,
        classes: np.ndarray,
        hits: np.ndarray,
        labels: np.ndarray,
    ) -> None:
        """Adds an image.

        Args:
          scores, classes, hits: [K] of its detections, without those that
            count neither way; class 1 is the first.
          labels: int [M] of the boxes that were to be found.
        """
        counts = np.bincount(labels, minlength=self._num_classes + 1)
        image = np.full(len(scores), len(self._num_ground_truth))
        self._num_ground_truth.append(counts[1:].astype(np.int32))
        self._scores.append(scores)
        self._classes.append(classes.astype(np.int32))
        self._hits.append(hits)
        self._images.append(image.astype(np.int32))

    def outcomes(self) -> list[Outcomes]:
        """Returns the outcomes of each class, in order."""
        scores, classes, hits, images = (
            np.concatenate(parts)
            for parts in (
                self._scores,
                self._classes,
                self._hits,
                self._images,
            )
        )
        order = np.lexsort((-scores, classes))  # by class, then score; stable
        labels = np.arange(1, self._num_classes + 2)
        borders = np.searchsorted(classes[order], labels)
        counts = np.reshape(self._num_ground_truth, (-1, self._num_classes))
        return [
            Outcomes(
                scores[order[first:last]],
                images[order[first:last]].astype(np.int32),
                hits[order[first:last]][None],
                np.zeros((1, last - first), bool),
                count.astype(np.int32),
            )
            for first, last, count in zip(
                borders, borders[1:], counts.T, strict=False
            )
        ]


def precision_recall(
    hits: np.ndarray, num_ground_truth: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns precision and recall, float64 [n], down a ranked list.

    Args:
      hits: bool [n], true positives among the detections, best first.
      num_ground_truth: boxes to be found, > 0.
    """
    true_positives = np.cumsum(hits, dtype=np.float64)
    precision = true_positives / np.arange(1, len(hits) + 1)
    return precision, true_positives / num_ground_truth


def envelope(precision: np.ndarray) -> np.ndarray:
    """Returns best precision at this recall or a higher one; along the first
    axis."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def at_recalls(
    precision: np.ndarray, recall: np.ndarray, recalls: np.ndarray
) -> float:
    """Returns the mean of max(precision where recall >= t) over recalls t.

    Args:
      precision: float [n].
      recall: float [n], rising.
      recalls: float [R]; what is never reached has precision 0.
    """
    reached = np.searchsorted(recall, recalls, side="left")
    return float(np.append(envelope(precision), 0.0)[reached].mean())


def area_under(precision: np.ndarray, recall: np.ndarray) -> float:
    """Returns the area under the curve made monotonic.

    Args:
      precision: float [n].
      recall: float [n], rising.
    """
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope(precision)))


def resampled(
    outcomes: Outcomes, weights: np.ndarray, recalls: np.ndarray | None
) -> np.ndarray:
    """Returns average precision of a class in samples of the images.

    Exactly that of a data set in which image i stands `weights[i, s]` times,
    but that copies of a detection stand before another one of its score.

    Args:
      outcomes: of the class.
      weights: int [N, S], of any size of int. Samples stand along the last
        axis: whole rows are copied, added and compared.
      recalls: float [R] for `at_recalls`, or None for `area_under`.

    Returns:
      float64 [S], the mean over the T overlaps; NaN where a sample has no
      ground truth of the class.
    """
    num_images, num_samples = weights.shape
    held = max(len(outcomes.scores), num_images, 1)
    chunks = [
        _resampled(outcomes, weights[:, samples], recalls)
        for samples in parts(num_samples, max(3, _CHUNK // held))
    ]
    return np.concatenate(chunks)


def parts(number: int, size: int) -> list[slice]:
    """Slices of at most `size`, all alike long.

    From a size of 3 on, none is of one element unless that is all there is:
    NumPy adds up a single column in another order than several, to other last
    bits.
    """
    count = -(-number // size)
    edges = [number * k // count for k in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(edges)]


def _resampled(outcomes, weights, recalls):
    total = outcomes.num_ground_truth @ weights  # [S]
    drawn = weights[outcomes.images]  # [n, S]
    seen = np.cumsum(drawn, axis=0, dtype=np.int32)
    average = np.zeros(len(total))
    for hits, ignored in zip(outcomes.hits, outcomes.ignored, strict=True):
        # Only true positives raise the envelope.
        right = np.flatnonzero(hits)
        counted = seen[right]
        if ignored.any():
            passed = np.cumsum(drawn * ignored[:, None], 0, dtype=np.int32)
            counted -= passed[right]
        found = np.cumsum(drawn[right], axis=0, dtype=np.int32)
        precision = envelope(found / np.maximum(counted, 1))
        recall = found / np.maximum(total, 1)
        average += _averages(precision, recall, recalls)
    return np.where(total > 0, average / len(outcomes.hits), np.nan)


def _averages(precision, recall, recalls):
    """Returns [S], from envelope and recall at each true positive, both [k,
    S].
    """
    if recalls is None:
        return np.sum(np.diff(recall, axis=0, prepend=0.0) * precision, axis=0)
    # Every true positive answers for the recalls that it is first to reach.
    passed = np.searchsorted(recalls, recall, side="right")
    answered = np.diff(passed, axis=0, prepend=0)
    return np.sum(answered * precision, axis=0) / len(recalls)
