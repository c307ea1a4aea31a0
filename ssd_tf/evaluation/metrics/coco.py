"""The twelve numbers of the COCO detection challenge, by pycocotools.

Sizes (small, medium, large) go by the area that the annotation states, which
in COCO's files is the mask's; where it states none, by the box's. There are no
categories beyond the class names given.
"""

import contextlib
import io
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ssd_tf.detect.results import Detections
from ssd_tf.evaluation.metrics import inputs
from ssd_tf.evaluation.metrics.outcomes import Outcomes

# In the order of `COCOeval.stats`.
METRICS = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR1",
    "AR10",
    "AR100",
    "AR_small",
    "AR_medium",
    "AR_large",
)
# COCO's overlaps and recalls, bit by bit as `COCOeval.params` makes them.
IOU_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
RECALLS = np.linspace(0.0, 1.0, 101)
# `COCOeval.params.areaRng`, in words.
SIZES = {
    "small": "smaller than 32 x 32 pixels",
    "medium": "between 32 x 32 and 96 x 96 pixels",
    "large": "larger than 96 x 96 pixels",
}


class ClassBoxes(NamedTuple):
    """Boxes of one class in all images: x, y, w, h in pixels."""

    num_images: int
    gt_images: np.ndarray  # int [m], rising
    gt_boxes: np.ndarray  # float64 [m, 4]
    gt_areas: np.ndarray  # float64 [m]
    gt_crowd: np.ndarray  # bool [m]
    images: np.ndarray  # int [n], rising
    boxes: np.ndarray  # float64 [n, 4]
    scores: np.ndarray  # float64 [n]


class COCOMetric:
    """COCO average precision and recall over many images.

    Average precision is the mean over IoU .50, .55, .. .95 and over classes
    with ground truth, at 101 recall points, with at most 100 detections a
    class and image. Crowd boxes absorb any number of detections. Equal scores
    in two images keep the order in which the images came.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    ):
        """Starts with no images.

        Args:
          class_names: names of the classes 1, 2, ...
          iou_thresholds: overlaps that AP and AR are means over, rising in
            (0, 1].

        Raises:
          ValueError: unusable class names or overlaps.
        """
        self.class_names = list(class_names)
        self.iou_thresholds = tuple(iou_thresholds)
        inputs.check_class_names(self.class_names)
        rising = sorted({*self.iou_thresholds}) == list(self.iou_thresholds)
        if not (
            rising
            and self.iou_thresholds
            and 0 < self.iou_thresholds[0]
            and self.iou_thresholds[-1] <= 1
        ):
            raise ValueError(
                "Expected rising iou_thresholds in (0, 1]. "
                f"Received: {self.iou_thresholds}"
            )
        self._truth = []  # an image: labels, boxes, areas, crowd
        self._found = []  # an image: classes, boxes, scores
        self._evaluated = None

    @property
    def protocol(self) -> str:
        """The rules in one line, for reports."""
        overlaps = ", ".join(f"{x:.2f}" for x in self.iou_thresholds)
        if self.iou_thresholds == IOU_THRESHOLDS:
            overlaps = ".50:.05:.95"
        return (
            f"COCO (pycocotools): IoU {overlaps}, 100 detections a class and "
            "image; sizes by the annotations' area in pixels; crowd boxes "
            "ignored, difficult ones count"
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
        *,
        height: int,
        width: int,
        area: ArrayLike | None = None,
    ) -> None:
        """Adds one image; rows of class 0 are padding and skipped.

        Args:
          boxes: float [K, 4], detections as ymin, xmin, ymax, xmax in [0, 1].
          scores: float [K].
          classes: integers [K], 1-based.
          gt_boxes: float [M, 4], like `boxes`.
          gt_labels: integers [M], 1-based.
          difficult: bool [M]; taken so that all metrics are called alike, and
            without effect: COCO knows no difficult boxes.
          crowd: bool [M], none by default.
          height: of the original image, pixels.
          width: of the original image, pixels.
          area: float [M], square pixels; the boxes' own by default.

        Raises:
          ValueError: lengths that differ, an unknown class, NaN or infinity, an
            image without pixels.
        """
        num_classes = len(self.class_names)
        found = inputs.detections(boxes, scores, classes, num_classes)
        truth = inputs.ground_truth(
            gt_boxes, gt_labels, difficult, crowd, num_classes, area
        )
        image = inputs.image_result("", height, width, found, truth)
        self.add(image.found, image.truth)

    def add(self, found: Detections, truth: inputs.GroundTruth) -> None:
        """Adds one checked image with boxes in pixels."""
        gt_boxes = _to_xywh(truth.boxes)
        own = gt_boxes[:, 2] * gt_boxes[:, 3]
        # A stated area that is the box's own up to rounding is the box's own.
        stated = ~np.isclose(truth.area, own, rtol=1e-4) & (truth.area > 0)
        areas = np.where(stated, truth.area, own)
        self._truth.append((truth.labels, gt_boxes, areas, truth.crowd))
        boxes = _to_xywh(found.boxes)
        self._found.append((found.classes, boxes, found.scores))
        self._evaluated = None

    def result(
        self, num_workers: int = 1
    ) -> dict[str, float | None | dict[str, str]]:
        """Returns the twelve numbers, in [0, 1], of all images so far.

        Args:
          num_workers: processes, see `evaluate_all`.

        Returns:
          `COCO/AP`, `COCO/AP50`, .. `COCO/AR_large`; None where nothing was to
          be found (pycocotools' -1), and `COCO/left_out` tells why, by key.
        """
        stats = self._stats(self._by_class(num_workers))
        result = {f"COCO/{name}": value for name, value in stats.items()}
        reasons = {
            f"COCO/{name}": self._why_left_out(name)
            for name, value in stats.items()
            if value is None
        }
        return {**result, "COCO/left_out": reasons}

    def per_class(self) -> dict[str, dict[str, float | None]]:
        """Returns the twelve numbers of each class, by its name and
        `METRICS`.
        """
        return {
            name: self._stats([evaluation])
            for name, evaluation in zip(
                self.class_names, self._by_class(), strict=True
            )
        }

    def by_iou(self) -> dict[str, list[float | None]]:
        """Returns AP at each of the overlaps: of the mean (`mAP`) and of each
        class."""
        # Any recall, class, all sizes, the largest number of detections.
        tables = [each.precision[:, :, 0, 0, -1] for each in self._by_class()]
        present = [table for table in tables if (table > -1).all()]
        means = {"mAP": np.concatenate(present, axis=1) if present else None}
        for name, table in zip(self.class_names, tables, strict=True):
            means[name] = table if (table > -1).all() else None
        return {
            name: [None] * len(self.iou_thresholds)
            if table is None
            else table.mean(axis=1).tolist()
            for name, table in means.items()
        }

    def outcomes(self) -> dict[str, Outcomes]:
        """Returns every class's judged detections, by its name."""
        evaluations = self._by_class()
        return {
            name: evaluation.outcomes
            for name, evaluation in zip(
                self.class_names, evaluations, strict=True
            )
        }

    def _by_class(self, num_workers=1):
        if self._evaluated is None:
            self._evaluated = evaluate_all(
                list(self._boxes_by_class()), self.iou_thresholds, num_workers
            )
        return self._evaluated

    def _stats(self, evaluations):
        stats = summarize(evaluations, self.iou_thresholds)
        return {
            name: None if value < 0 else float(value)
            for name, value in zip(METRICS, stats, strict=True)
        }

    def _boxes_by_class(self) -> Iterator[ClassBoxes]:
        nothing = np.empty(0, int), np.empty((0, 4)), np.empty(0)
        truth = _columns(self._truth, (*nothing, np.empty(0, bool)))
        found = _columns(self._found, nothing)
        for label in range(1, len(self.class_names) + 1):
            yield ClassBoxes(
                len(self._truth),
                *_of_class(truth, label),
                *_of_class(found, label),
            )

    def _why_left_out(self, name: str) -> str:
        size = SIZES.get(name.partition("_")[2])
        if size:
            return "no ground truth " + size
        overlap = {"AP50": 0.5, "AP75": 0.75}.get(name, self.iou_thresholds[0])
        if overlap not in self.iou_thresholds:
            return f"IoU {overlap} is not among the overlaps"
        return "no ground truth"


def _columns(images, nothing):
    """Labels of all rows, the numbers of their images, the other columns."""
    numbers = np.repeat(
        np.arange(len(images)), [len(image[0]) for image in images]
    )
    columns = zip(nothing, *images, strict=True)
    labels, *others = (np.concatenate(column) for column in columns)
    return labels, numbers, *others


def _of_class(columns, label):
    """Returns the rows of one class, without the labels."""
    labels, *others = columns
    return [column[labels == label] for column in others]


def _to_xywh(boxes: np.ndarray) -> np.ndarray:
    """Returns x, y, width, height [n, 4]; an inverted box has no extent."""
    size = np.maximum(boxes[:, :1:-1] - boxes[:, 1::-1], 0)
    return np.concatenate([boxes[:, 1::-1], size], axis=1)


# Below this a second process costs more than it saves.
_DETECTIONS_PER_WORKER = 50_000


class ClassEvaluation(NamedTuple):
    """COCOeval's tables of one class, -1 where there is no ground truth.

    T overlaps, R recalls, A ranges of area, M limits of detections.
    """

    precision: np.ndarray  # float64 [T, R, 1, A, M]
    recall: np.ndarray  # float64 [T, 1, A, M]
    outcomes: Outcomes  # any size, the largest limit of detections


def evaluate_all(
    classes: Sequence[ClassBoxes],
    iou_thresholds: Sequence[float],
    num_workers: int = 1,
) -> list[ClassEvaluation]:
    """Evaluates every class, in order.

    Args:
      classes: what there is of each.
      iou_thresholds: T, rising.
      num_workers: processes at most; with more than 1 the main module must be
        importable (`if __name__ == "__main__":`).
    """
    work = sum(len(each.scores) for each in classes)
    num_workers = min(num_workers, 1 + work // _DETECTIONS_PER_WORKER)
    arguments = classes, [list(iou_thresholds)] * len(classes)
    if num_workers == 1:
        return list(map(evaluate_class, *arguments))
    with futures.ProcessPoolExecutor(
        num_workers, multiprocessing.get_context("spawn")
    ) as pool:
        return list(pool.map(evaluate_class, *arguments))


def evaluate_class(
    of_class: ClassBoxes, iou_thresholds: Sequence[float]
) -> ClassEvaluation:
    """Runs pycocotools on one class."""
    evaluation = _new(iou_thresholds)
    with _silence():
        evaluation.cocoGt = _index(_ground_truth(of_class))
        evaluation.cocoDt = _index(_detections(of_class))
        evaluation.params.imgIds = np.union1d(
            of_class.gt_images, of_class.images
        ).tolist()
        evaluation.params.catIds = [1]
        evaluation.evaluate()
        evaluation.accumulate()
    return ClassEvaluation(
        evaluation.eval["precision"],
        evaluation.eval["recall"],
        _outcomes(evaluation, of_class.num_images),
    )


def summarize(
    classes: Sequence[ClassEvaluation], iou_thresholds: Sequence[float]
) -> np.ndarray:
    """Returns the twelve numbers of these classes together; float64 [12], -1:
    none."""
    evaluation = _new(iou_thresholds)
    evaluation.eval = {
        "precision": np.concatenate([x.precision for x in classes], axis=2),
        "recall": np.concatenate([x.recall for x in classes], axis=1),
    }
    with _silence():
        evaluation.summarize()
    return evaluation.stats


def _new(iou_thresholds):
    from pycocotools.cocoeval import COCOeval

    evaluation = COCOeval(iouType="bbox")
    evaluation.params.iouThrs = np.array(iou_thresholds)
    return evaluation


def _silence():
    """Returns pycocotools reports each of its steps on standard output."""
    return contextlib.redirect_stdout(io.StringIO())


def _index(annotations: Iterator[dict]):
    """Returns a `pycocotools.coco.COCO` over these annotations."""
    from pycocotools.coco import COCO

    coco = COCO()
    # Numbered from 1: pycocotools takes a match with annotation 0 for none.
    coco.dataset = {
        "annotations": [
            {"id": number, "category_id": 1, **fields}
            for number, fields in enumerate(annotations, start=1)
        ]
    }
    coco.createIndex()
    return coco


def _ground_truth(of_class: ClassBoxes) -> Iterator[dict]:
    for image, box, area, crowd in zip(
        of_class.gt_images.tolist(),
        of_class.gt_boxes.tolist(),
        of_class.gt_areas.tolist(),
        of_class.gt_crowd.tolist(),
        strict=True,
    ):
        yield {
            "image_id": image,
            "bbox": box,
            "area": area,
            "iscrowd": int(crowd),
        }


def _detections(of_class: ClassBoxes) -> Iterator[dict]:
    for image, box, score in zip(
        of_class.images.tolist(),
        of_class.boxes.tolist(),
        of_class.scores.tolist(),
        strict=True,
    ):
        yield {
            "image_id": image,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            "score": score,
        }


def _outcomes(evaluation, num_images: int) -> Outcomes:
    """Returns the matches behind the tables, ranked as `accumulate` ranks
    them.
    """
    num_ground_truth = np.zeros(num_images, np.int32)
    num_overlaps = len(evaluation.params.iouThrs)
    nothing = np.zeros((num_overlaps, 0), bool)
    scores, images = [np.empty(0)], [np.empty(0, np.int32)]
    hits, ignored = [nothing], [nothing]
    # The first of the ranges of area is all.
    for entry in evaluation.evalImgs[: len(evaluation.params.imgIds)]:
        if entry is None:
            continue
        image = entry["image_id"]
        num_ground_truth[image] = np.count_nonzero(entry["gtIgnore"] == 0)
        passed = entry["dtIgnore"].astype(bool)
        scores.append(np.array(entry["dtScores"], np.float64))
        images.append(np.full(len(entry["dtScores"]), image, np.int32))
        ignored.append(passed)
        hits.append((entry["dtMatches"] > 0) & ~passed)
    scores = np.concatenate(scores)
    order = np.argsort(-scores, kind="stable")
    return Outcomes(
        scores[order],
        np.concatenate(images)[order],
        np.concatenate(hits, axis=1)[:, order],
        np.concatenate(ignored, axis=1)[:, order],
        num_ground_truth,
    )
