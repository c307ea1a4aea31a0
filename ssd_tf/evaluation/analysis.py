"""Everything that a report tells beyond the official metrics.

All of it follows from the boxes of `evaluate.collect`; nothing here runs a
network or reads a file.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssd_tf.evaluation import coverage
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
    """Where a detector fails, for metrics.json.

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
        else coverage.coverage(images, class_names, anchors, input_size),
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
    """The scores of the best F1, float64 [C] by class number."""
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
    """All images, worst first, at the scores of the best F1."""
    cuts = thresholds(per_class)
    return worst_images.rank(
        [
            worst_images.judge(
                index, image, class_names, cuts, matching_threshold
            )
            for index, image in enumerate(images)
        ]
    )
