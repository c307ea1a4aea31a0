"""pycocotools on one class at a time.

A class knows nothing of the others in COCO's protocol. So the memory that
pycocotools takes is that of one class, and processes can share the classes.
"""

import contextlib
import io
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from ssd_tf.evaluation.metrics.outcomes import Outcomes

# Below this a second process costs more than it saves.
_DETECTIONS_PER_WORKER = 50_000


class ClassBoxes(NamedTuple):
    """What one class has over all images; boxes are x, y, w, h in pixels."""

    num_images: int
    gt_images: np.ndarray  # int [m], rising
    gt_boxes: np.ndarray  # float64 [m, 4]
    gt_areas: np.ndarray  # float64 [m]
    gt_crowd: np.ndarray  # bool [m]
    images: np.ndarray  # int [n], rising
    boxes: np.ndarray  # float64 [n, 4]
    scores: np.ndarray  # float64 [n]


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
    """The twelve numbers of these classes together; float64 [12], -1: none."""
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
    """pycocotools reports each of its steps on standard output."""
    return contextlib.redirect_stdout(io.StringIO())


def _index(annotations: Iterator[dict]):
    """A `pycocotools.coco.COCO` over these annotations."""
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
    """The matches behind the tables, ranked as `accumulate` ranks them."""
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
