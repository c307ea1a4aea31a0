"""Geometry of boxes; nothing here knows of classes or anchor layouts.

A box is `[ymin, xmin, ymax, xmax]`, on the last axis; its centre form is
`[cy, cx, h, w]`. Coordinates are relative to the image unless a caller says
otherwise. Every function takes NumPy arrays or tensors and answers in kind.
"""

from typing import Any

import numpy as np

Array = Any  # np.ndarray or tf.Tensor, float


def _namespace(*arrays: Array):
    """NumPy for arrays, TensorFlow as soon as one of them is a tensor."""
    if all(isinstance(array, np.ndarray) for array in arrays):
        return np
    import tensorflow as tf

    return tf


def area(boxes: Array) -> Array:
    """Area `[...]` of boxes `[..., 4]`; an inverted box has area 0."""
    xp = _namespace(boxes)
    height = xp.maximum(boxes[..., 2] - boxes[..., 0], 0)
    width = xp.maximum(boxes[..., 3] - boxes[..., 1], 0)
    return height * width


def intersection_matrix(boxes: Array, others: Array) -> Array:
    """Areas `[..., n, m]` common to boxes `[..., n, 4]` and others `[m, 4]`."""
    xp = _namespace(boxes, others)
    ymin, xmin, ymax, xmax = (boxes[..., None, i] for i in range(4))
    height = xp.minimum(ymax, others[:, 2]) - xp.maximum(ymin, others[:, 0])
    width = xp.minimum(xmax, others[:, 3]) - xp.maximum(xmin, others[:, 1])
    return xp.maximum(height, 0) * xp.maximum(width, 0)


def iou_matrix(boxes: Array, others: Array) -> Array:
    """Intersection over union, 0 where both areas are 0.

    Args:
      boxes: float `[..., n, 4]`.
      others: float `[m, 4]`.

    Returns:
      float `[..., n, m]` in [0, 1].
    """
    xp = _namespace(boxes, others)
    intersection = intersection_matrix(boxes, others)
    # In the port's order of additions, so that ties fall as they do there.
    union = area(others) - intersection + area(boxes)[..., None]
    # The smallest normal float32: 0 / tiny is 0, and no sane area is below.
    return intersection / xp.maximum(union, np.finfo(np.float32).tiny)


def clip(boxes: Array, window: Array | None = None) -> Array:
    """Cuts boxes `[..., 4]` to a window `[4]`, by default the whole image.

    A box outside the window becomes one of area 0 on its border; ymin <= ymax
    and xmin <= xmax stay true where they were.
    """
    xp = _namespace(boxes)
    if window is None:
        window = np.array([0, 0, 1, 1], np.float32)
    low = xp.stack([window[0], window[1], window[0], window[1]])
    high = xp.stack([window[2], window[3], window[2], window[3]])
    return xp.minimum(xp.maximum(boxes, low), high)


def to_center(boxes: Array) -> Array:
    """Corners `[..., 4]` -> centre form; the inverse of `to_corners`."""
    xp = _namespace(boxes)
    ymin, xmin, ymax, xmax = (boxes[..., i] for i in range(4))
    return xp.stack(
        [(ymax + ymin) / 2, (xmax + xmin) / 2, ymax - ymin, xmax - xmin],
        axis=-1,
    )


def to_corners(boxes: Array) -> Array:
    """Centre form `[..., 4]` -> corners; the inverse of `to_center`."""
    xp = _namespace(boxes)
    cy, cx, height, width = (boxes[..., i] for i in range(4))
    return xp.stack(
        [cy - height / 2, cx - width / 2, cy + height / 2, cx + width / 2],
        axis=-1,
    )
