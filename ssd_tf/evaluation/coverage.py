"""Which annotated boxes the anchors of a net can learn at all.

A box is learnt from the anchors that overlap it by 0.5. Where no anchor does,
or each of those that do takes another box, the box has no more than the one
anchor that forced matching gives it (paper, section 2.2, "Matching strategy").
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssd_tf.evaluation.metrics import sizes
from ssd_tf.evaluation.metrics.inputs import ImageResult
from ssd_tf.multibox import boxes as geometry


def of_boxes(
    boxes: np.ndarray, anchors: np.ndarray, match_threshold: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """What the anchors do for the boxes of one image.

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
