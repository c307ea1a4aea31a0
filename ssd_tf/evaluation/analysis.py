"""Everything that a report tells beyond the official metrics.

All of it follows from the boxes of `evaluate.collect`; nothing here runs a
network or reads a file.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssd_tf.evaluation.metrics import (
    bootstrap,
    confusion,
    errors,
    operating_point,
    sizes,
    voc,
    worst_images,
)
from ssd_tf.evaluation.metrics.inputs import ImageResult
from ssd_tf.multibox import boxes as geometry

# Score below which a detection counts for nothing, of a class without a hit.
DEFAULT_THRESHOLD = 0.5


def analyse(
    images: Sequence[ImageResult],
    judged: bootstrap.Judged,
    class_names: Sequence[str],
    matching_threshold: float = 0.5,
    input_size: tuple[int, int] | None = None,
    anchors: np.ndarray | None = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Analyses the mistakes of a detector, for metrics.json.

    Args:
      images, judged: of `evaluate.collect` and `evaluate.measure`.
      class_names: without the background.
      matching_threshold: IoU beyond which a detection is right.
      input_size: height and width of the network's input, pixels; without it
        the sizes are left out.
      anchors: float32 [A, 4], corners; without them the coverage is left out.
      num_samples: of the bootstrap; 0 for none.
      seed: of the bootstrap.

    Returns:
      `bootstrap`, `per_class` (ground truth, best F1, calibration),
      `confusion`, `errors`, `sizes`, `anchor_coverage`; None for what was
      left out.
    """
    per_class = {
        name: _of_class(outcomes) for name, outcomes in judged.voc.items()
    }
    cuts = thresholds(per_class)
    matrix = confusion.matrix(images, cuts, matching_threshold)
    return {
        "bootstrap": _bootstrap(judged, len(images), num_samples, seed),
        "per_class": per_class,
        "confusion": {
            "classes": ["background", *class_names],
            "rows": "what it is",
            "columns": "what it is called",
            "counts": matrix.tolist(),
        },
        "errors": errors.costs(images, class_names, matching_threshold),
        "sizes": input_size
        and sizes.average_precisions(
            images, class_names, input_size, matching_threshold
        ),
        "anchor_coverage": None
        if anchors is None
        else coverage(images, class_names, anchors, input_size),
    }


def _bootstrap(judged, num_images, num_samples, seed):
    if not num_samples:
        return None
    found = bootstrap.intervals(judged, num_images, num_samples, seed)
    return {
        "samples": num_samples,
        "seed": seed,
        "level": bootstrap.LEVEL,
        "intervals": {name: list(each) for name, each in found.items()},
    }


def _of_class(outcomes):
    total = int(outcomes.num_ground_truth.sum())
    best = operating_point.best_f1(voc.curve(outcomes)) if total else None
    return {
        "ground_truth": total,
        "detections": len(outcomes.scores),
        "best_f1": best and best._asdict(),
        "calibration": operating_point.calibration(outcomes),
    }


def thresholds(per_class: dict[str, Any]) -> np.ndarray:
    """Returns the scores of the best F1, float64 [C] by class number."""
    return np.array(
        [
            DEFAULT_THRESHOLD,
            *(
                each["best_f1"]["threshold"]
                if each["best_f1"]
                else DEFAULT_THRESHOLD
                for each in per_class.values()
            ),
        ]
    )


def rank(
    images: Sequence[ImageResult],
    per_class: dict[str, Any],
    class_names: Sequence[str],
    matching_threshold: float = 0.5,
) -> list[worst_images.Judgement]:
    """Returns all images, worst first, at the scores of the best F1."""
    cuts = thresholds(per_class)
    return worst_images.rank(
        [
            worst_images.judge(
                index, image, class_names, cuts, matching_threshold
            )
            for index, image in enumerate(images)
        ]
    )


def of_boxes(
    boxes: np.ndarray, anchors: np.ndarray, match_threshold: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Computes which boxes of one image the anchors reach.

    Args:
      boxes: float [M, 4], corners.
      anchors: float [A, 4], corners.
      match_threshold: IoU from which an anchor is matched.

    Returns:
      bool [M], whether some anchor reaches the box, and bool [M], whether
      only forced matching gives it one.
    """
    iou = geometry.iou_matrix(boxes, anchors)  # [M, A]
    reached = (iou >= match_threshold).any(axis=1)
    if not len(boxes):
        return reached, reached
    # Every anchor takes the box that it overlaps most, the first of equal ones.
    taken = iou.argmax(axis=0)
    matched = iou.max(axis=0) >= match_threshold
    has_anchor = np.zeros(len(boxes), bool)
    has_anchor[taken[matched]] = True
    return reached, ~has_anchor


def coverage(
    images: Sequence[ImageResult],
    class_names: Sequence[str],
    anchors: np.ndarray,
    input_size: tuple[int, int],
    match_threshold: float = 0.5,
) -> dict[str, Any]:
    """Shares of the boxes that anchors reach, by class and size.

    Crowds are left out: nobody learns them.

    Args:
      images: of a whole data set.
      class_names: of the classes 1, 2, ...
      anchors: float [A, 4], corners.
      input_size: height and width of the network's input, pixels.
      match_threshold: IoU from which an anchor is matched.

    Returns:
      `all` and, by class name, `per_class`, each by size (`sizes.NAMES`) and
      `all`: `boxes`; `reached`, the share that some anchor reaches; `forced`,
      the share that only forced matching gives an anchor. None without boxes.
    """
    nothing = np.empty((0, 4), int)
    rows = [nothing]
    for image in images:
        real = ~image.truth.crowd
        boxes = image.truth.boxes[real]
        size = sizes.size_of(boxes, image, input_size)
        shares = boxes / ([image.height, image.width] * 2)
        reached, forced = of_boxes(shares, anchors, match_threshold)
        columns = (image.truth.labels[real], size, reached, forced)
        rows.append(np.stack(columns, axis=1))
    labels, size, reached, forced = np.concatenate(rows).T

    def by_size(chosen):
        return {
            **{
                name: _shares(chosen & (size == index), reached, forced)
                for index, name in enumerate(sizes.NAMES)
            },
            "all": _shares(chosen, reached, forced),
        }

    return {
        "all": by_size(labels > 0),
        "per_class": {
            name: by_size(labels == label)
            for label, name in enumerate(class_names, 1)
        },
    }


def _shares(chosen, reached, forced):
    count = int(chosen.sum())
    return {
        "boxes": count,
        "reached": float(reached[chosen].mean()) if count else None,
        "forced": float(forced[chosen].mean()) if count else None,
    }
