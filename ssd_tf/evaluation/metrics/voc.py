"""Average precision as PASCAL VOC defines it, in NumPy.

The rules, those of the development kit and of py-faster-rcnn's `voc_eval`:

* Detections are taken by falling score; each one looks at the ground truth of
  its own class in its image that it overlaps most.
* IoU above the threshold makes it a true positive if that box is still free
  and a false positive if an earlier detection has it. All else is a false
  positive.
* Difficult and crowd boxes do not count as ground truth, and a detection
  matched to one counts neither way. VOC has no crowds (groups in Open Images'
  words); as in TF Object Detection API and COCO a crowd takes any number of
  detections that are right on no other box, by the share of the detection that
  it covers: what it is of is smaller than itself.
* A class without ground truth has no average precision. It is left out of the
  mean and named in the result.

Where the two disagree (the kit accepts IoU >= threshold, `voc_eval` and
SSD-Tensorflow want IoU > threshold) this is `voc_eval`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ssd_tf.detect.results import Detections
from ssd_tf.evaluation.metrics import inputs
from ssd_tf.evaluation.metrics.outcomes import (
    Outcomes,
    Tally,
    area_under,
    at_recalls,
    precision_recall,
)
from ssd_tf.multibox.boxes import area, intersection_matrix, iou_matrix

# 0, .1, .. 1 exactly as `voc_eval` and SSD-Tensorflow make them: those at .3,
# .6 and .7 are 1e-16 too large (0.30000000000000004), so that 3 boxes found of
# 10 do not reach recall .3. It shows in classes of few boxes only: k / 10 would
# give .369 in place of the known .333 for 15 boxes (tests/data/eval_golden).
RECALL_THRESHOLDS = np.arange(0, 1.1, 0.1)


class Curve(NamedTuple):
    """Precision and recall of one class, down the list of its detections."""

    scores: np.ndarray  # float64 [n], falling
    precision: np.ndarray  # float64 [n]
    recall: np.ndarray  # float64 [n], rising
    num_ground_truth: int  # boxes neither difficult nor crowd, > 0


class VOCMetric:
    """VOC07 (11 points) and VOC12 (area) average precision over many images.

    Holds a few bytes per detection until `result`. Equal scores in two images
    keep the order in which the images came; else the order does not matter.
    """

    def __init__(self, class_names: Sequence[str], iou_threshold: float = 0.5):
        """Starts with no images.

        Args:
          class_names: names of the classes 1, 2, ...
          iou_threshold: overlap above which a detection is a match, in [0, 1).

        Raises:
          ValueError: unusable class names, or a threshold out of range.
        """
        self.class_names = list(class_names)
        self.iou_threshold = iou_threshold
        inputs.check_class_names(self.class_names)
        if not 0 <= iou_threshold < 1:
            raise ValueError(
                f"Expected iou_threshold in [0, 1). Received: {iou_threshold}"
            )
        self._tally = Tally(len(self.class_names))

    @property
    def protocol(self) -> str:
        """The rules in one line, for reports."""
        return (
            f"PASCAL VOC: match at IoU > {self.iou_threshold:g}; difficult "
            "boxes ignored, and detections that crowds cover by as much; mean "
            "over classes with ground truth"
        )

    def update(
        self,
        boxes: ArrayLike,
        scores: ArrayLike,
        classes: ArrayLike,
        gt_boxes: ArrayLike,
        gt_labels: ArrayLike,
        difficult: ArrayLike | None = None,
        crowd: ArrayLike | None = None,
    ) -> None:
        """Adds one image; rows of class 0 are padding and skipped.

        Args:
          boxes: float [K, 4], detections as ymin, xmin, ymax, xmax in [0, 1].
          scores: float [K].
          classes: integers [K], 1-based.
          gt_boxes: float [M, 4], like `boxes`.
          gt_labels: integers [M], 1-based.
          difficult: bool [M], none by default.
          crowd: bool [M], none by default.

        Raises:
          ValueError: lengths that differ, an unknown class, NaN or infinity.
        """
        num_classes = len(self.class_names)
        found = inputs.detections(boxes, scores, classes, num_classes)
        truth = inputs.ground_truth(
            gt_boxes, gt_labels, difficult, crowd, num_classes
        )
        self.add(found, truth)

    def add(self, found: Detections, truth: inputs.GroundTruth) -> None:
        """Adds one image that `metrics.inputs` has checked."""
        hits, skipped = judge(found, truth, self.iou_threshold)
        self._tally.add(
            found.scores[~skipped],
            found.classes[~skipped],
            hits[~skipped],
            truth.labels[~truth.ignored],
        )

    def outcomes(self) -> dict[str, Outcomes]:
        """Returns every class's judged detections, by its name."""
        return dict(zip(self.class_names, self._tally.outcomes(), strict=True))

    def curves(self) -> dict[str, Curve]:
        """Returns precision-recall curve by name of each class with ground
        truth."""
        return {
            name: curve(of_class)
            for name, of_class in self.outcomes().items()
            if of_class.num_ground_truth.any()
        }

    def result(self) -> dict[str, float | None | list[str]]:
        """Returns average precision, in [0, 1], of all images so far.

        Returns:
          `AP_VOC07/mAP` and `AP_VOC12/mAP`, the means over the classes with
          ground truth (None where there is no such class); `AP_VOC07/NAME` and
          `AP_VOC12/NAME` for every class, None for those without ground truth,
          which `AP_VOC/left_out` lists.
        """
        curves = self.curves()
        left_out = [name for name in self.class_names if name not in curves]
        result = {}
        for year, average in (("07", ap_11_points), ("12", area_under)):
            by_class = {
                name: average(each.precision, each.recall)
                for name, each in curves.items()
            }
            mean = float(np.mean(list(by_class.values()))) if curves else None
            result[f"AP_VOC{year}/mAP"] = mean
            for name in self.class_names:
                result[f"AP_VOC{year}/{name}"] = by_class.get(name)
        return {**result, "AP_VOC/left_out": left_out}


def curve(outcomes: Outcomes) -> Curve:
    """Returns precision and recall of a class that has ground truth."""
    total = int(outcomes.num_ground_truth.sum())
    return Curve(
        outcomes.scores, *precision_recall(outcomes.hits[0], total), total
    )


def ap_11_points(precision: np.ndarray, recall: np.ndarray) -> float:
    """Returns VOC2007: `at_recalls` 0, .1, .. 1."""
    return at_recalls(precision, recall, RECALL_THRESHOLDS)


def judge(
    found: Detections, truth: inputs.GroundTruth, iou_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Tells each detection of one image, best first: hit, skipped (bool [K]).

    Neither one means a false positive. Skipped are those on a difficult box,
    and those in a crowd that are right on no box.
    """
    hits = np.zeros(len(found.scores), bool)
    if not len(truth.labels):
        return hits, hits
    same_class = found.classes[:, None] == truth.labels
    comparable = same_class & ~truth.crowd
    iou = iou_matrix(found.boxes, truth.boxes) * comparable  # [K, M]
    best = iou.argmax(axis=1)
    matched = iou.max(axis=1) > iou_threshold
    skipped = matched & truth.difficult[best]
    # Of the detections that chose the same box the first one gets it.
    rivals = np.flatnonzero(matched & ~skipped)
    _, first = np.unique(best[rivals], return_index=True)
    hits[rivals[first]] = True
    in_crowd = crowd_cover(found.boxes, truth) * same_class > iou_threshold
    return hits, skipped | (in_crowd.any(axis=1) & ~hits)


def crowd_cover(boxes: np.ndarray, truth: inputs.GroundTruth) -> np.ndarray:
    """Shares float [K, M] of boxes [K, 4] that crowds cover; 0 of others."""
    shared = intersection_matrix(boxes, truth.boxes) * truth.crowd
    own = np.maximum(area(boxes), np.finfo(np.float32).tiny)
    return shared / own[:, None]
