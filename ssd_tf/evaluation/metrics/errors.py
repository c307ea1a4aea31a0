"""Kinds of a detector's mistakes, and the cost of each kind.

The kinds and their order are TIDE's (Bolya et al., 2020, arXiv 2008.08115,
section 2.2): a wrong detection overlaps

  localisation    a box of its class, too little for a match
  classification  a box of another class, enough for a match
  duplicate       a box of its class, enough, but another one has it
  background      no box
  both            a box of another class, and too little

and a box is missed where no detection is right and none is one of the first
two kinds on it. The cost of a kind is what the mean average precision (VOC's
area under the curve) would gain were all its mistakes mended: a box or class
put right where the object is still to be found, everything else taken away.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssd_tf.detect.results import Detections
from ssd_tf.evaluation.metrics import voc
from ssd_tf.evaluation.metrics.inputs import (
    GroundTruth,
    ImageResult,
)
from ssd_tf.evaluation.metrics.outcomes import area_under, precision_recall
from ssd_tf.multibox.boxes import iou_matrix

# Overlap below which a detection is on the background (TIDE's t_b).
BACKGROUND_IOU = 0.1
LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND, BOTH = range(1, 6)
KINDS = ("localisation", "classification", "duplicate", "background", "both")
MISSED = "missed"


class Mistakes(NamedTuple):
    """One image, judged."""

    kind: np.ndarray  # int [K], 0 where right, index in KINDS + 1 where wrong
    skipped: np.ndarray  # bool [K], on an ignored box: neither
    target: np.ndarray  # int [K], the box that a kind 1 or 2 is about, or -1
    found: np.ndarray  # bool [M], boxes that a detection is right on
    missed: np.ndarray  # bool [M]


def find(
    found: Detections, truth: GroundTruth, iou_threshold: float = 0.5
) -> Mistakes:
    """Judges one image by VOC's rules and names every mistake.

    Args:
      found: detections, best first.
      truth: annotated boxes; ignored ones are nobody's mistake.
      iou_threshold: overlap above which a detection is a match.
    """
    hits, skipped = voc.judge(found, truth, iou_threshold)
    counts = ~truth.ignored
    # One box that nothing overlaps, so that there is always a best one.
    boxes = np.concatenate([truth.boxes, np.zeros((1, 4))])
    labels = np.append(np.where(counts, truth.labels, -1), -1)
    iou = iou_matrix(found.boxes, boxes) * (labels > 0)  # [K, M + 1]
    is_same = found.classes[:, None] == labels
    same, other = iou * is_same, iou * ~is_same
    best_same, best_other = same.max(axis=1), other.max(axis=1)
    kind = np.select(
        [
            hits | skipped,
            (best_same >= BACKGROUND_IOU) & (best_same <= iou_threshold),
            best_other > iou_threshold,
            best_same > iou_threshold,
            np.maximum(best_same, best_other) < BACKGROUND_IOU,
        ],
        [0, LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND],
        BOTH,
    )
    target = np.full(len(kind), -1)
    for which, overlap in ((LOCALISATION, same), (CLASSIFICATION, other)):
        target[kind == which] = overlap.argmax(axis=1)[kind == which]
    right = np.zeros(len(labels), bool)
    right[same.argmax(axis=1)[hits]] = True
    blamed = np.zeros(len(labels), bool)
    blamed[target[target >= 0]] = True
    missed = counts & ~right[:-1] & ~blamed[:-1]
    return Mistakes(kind, skipped, target, right[:-1], missed)


def costs(
    images: Sequence[ImageResult],
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
) -> dict[str, dict[str, float | int | dict[str, int]]]:
    """Counts each kind of mistake and computes its cost.

    Args:
      images: of a whole data set.
      class_names: of the classes 1, 2, ...
      iou_threshold: overlap above which a detection is a match.

    Returns:
      By kind, `KINDS` and `MISSED`: `count`, `cost` (mAP that mending all of
      them would gain, in [-1, 1]) and `per_class`, the counts of the
      detections' (missed: the boxes') classes.
    """
    table = _Table.of(images, iou_threshold)
    plain = table.mean_average_precision(len(class_names))
    result = {}
    for number, name in enumerate((*KINDS, MISSED), start=1):
        if name == MISSED:
            mended, labels = table.without_missed(), table.missed_labels
        else:
            mended, labels = table.mend(number), table.labels_of(number)
        counts = np.bincount(labels, minlength=len(class_names) + 1)[1:]
        better = mended.mean_average_precision(len(class_names))
        result[name] = {
            "count": int(counts.sum()),
            "cost": better - plain,
            "per_class": dict(zip(class_names, counts.tolist(), strict=True)),
        }
    return result


class _Table(NamedTuple):
    """All detections that count, and the boxes they are about."""

    scores: np.ndarray  # float [n]
    labels: np.ndarray  # int [n]
    kind: np.ndarray  # int [n]
    target: np.ndarray  # int [n], of all boxes, or -1
    gt_labels: np.ndarray  # int [m], 0 where ignored
    gt_found: np.ndarray  # bool [m]
    gt_missed: np.ndarray  # bool [m]

    @classmethod
    def of(cls, images, iou_threshold):
        parts, before = [], 0
        for image in images:
            found, truth = image.found, image.truth
            mistakes = find(found, truth, iou_threshold)
            kept = ~mistakes.skipped
            target = mistakes.target[kept]
            parts.append(
                (
                    found.scores[kept],
                    found.classes[kept],
                    mistakes.kind[kept],
                    np.where(target < 0, -1, target + before),
                    np.where(truth.ignored, 0, truth.labels),
                    mistakes.found,
                    mistakes.missed,
                )
            )
            before += len(truth.labels)
        nothing = [np.empty(0)] + [np.empty(0, int)] * 4
        nothing += [np.empty(0, bool)] * 2
        columns = zip(nothing, *parts, strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    @property
    def missed_labels(self):
        return self.gt_labels[self.gt_missed]

    def labels_of(self, kind):
        return self.labels[self.kind == kind]

    def mend(self, kind):
        """Returns outcomes without one kind of mistake: corrected or
        removed.
        """
        wrong = self.kind == kind
        # Index -1 is that of the detections that are about no box.
        open_box = ~np.append(self.gt_found, True)[self.target]
        candidates = np.flatnonzero(wrong & open_box)
        # Of several on one box the best is put right.
        candidates = candidates[
            np.argsort(-self.scores[candidates], kind="stable")
        ]
        _, first = np.unique(self.target[candidates], return_index=True)
        mended = candidates[first]
        labels, kinds = self.labels.copy(), self.kind.copy()
        labels[mended] = self.gt_labels[self.target[mended]]
        kinds[mended] = 0
        kept = kinds != kind
        return self._replace(
            scores=self.scores[kept],
            labels=labels[kept],
            kind=kinds[kept],
            target=self.target[kept],
        )

    def without_missed(self):
        """Returns outcomes without the boxes that were missed."""
        return self._replace(
            gt_labels=np.where(self.gt_missed, 0, self.gt_labels)
        )

    def mean_average_precision(self, num_classes):
        totals = np.bincount(self.gt_labels, minlength=num_classes + 1)
        averages = []
        for label in np.flatnonzero(totals[1:]) + 1:
            of_class = np.flatnonzero(self.labels == label)
            order = np.argsort(-self.scores[of_class], kind="stable")
            hits = self.kind[of_class[order]] == 0
            averages.append(area_under(*precision_recall(hits, totals[label])))
        return float(np.mean(averages)) if averages else 0.0
