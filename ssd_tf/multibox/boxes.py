"""Geometry of boxes, independent of classes and of anchors.

A box is `[ymin, xmin, ymax, xmax]`, on the last axis; its centre form is
`[cy, cx, h, w]`. Coordinates are relative to the image unless a caller says
otherwise. Every function takes NumPy arrays or tensors and returns the same
kind: tensors as soon as one argument is a tensor.
"""

from typing import Any

import numpy as np

Array = Any  # np.ndarray or tf.Tensor, float


def _namespace(*arrays: Array):
    """Returns the module numpy if all are arrays, else tensorflow."""
    if all(isinstance(array, np.ndarray) for array in arrays):
        return np
    import tensorflow as tf

    return tf


def area(boxes: Array) -> Array:
    """Computes areas `[...]` of boxes `[..., 4]`; inverted ones have 0."""
    xp = _namespace(boxes)
    height = xp.maximum(boxes[..., 2] - boxes[..., 0], 0)
    width = xp.maximum(boxes[..., 3] - boxes[..., 1], 0)
    return height * width


def intersection_matrix(boxes: Array, others: Array) -> Array:
    """Computes areas `[..., n, m]` that boxes and others have in common.

    Args:
      boxes: float `[..., n, 4]`.
      others: float `[m, 4]`.
    """
    xp = _namespace(boxes, others)
    ymin, xmin, ymax, xmax = (boxes[..., None, i] for i in range(4))
    height = xp.minimum(ymax, others[:, 2]) - xp.maximum(ymin, others[:, 0])
    width = xp.minimum(xmax, others[:, 3]) - xp.maximum(xmin, others[:, 1])
    return xp.maximum(height, 0) * xp.maximum(width, 0)


def iou_matrix(boxes: Array, others: Array) -> Array:
    """Computes intersection over union (Jaccard overlap); 0 for empty boxes.

    Args:
      boxes: float `[..., n, 4]`.
      others: float `[m, 4]`.

    Returns:
      float `[..., n, m]` in [0, 1].
    """
    xp = _namespace(boxes, others)
    intersection = intersection_matrix(boxes, others)
    # The port's order of additions: another one rounds differently, and
    # could break ties between anchors differently.
    union = area(others) - intersection + area(boxes)[..., None]
    # The smallest normal float32, 1e-38, makes 0 / 0 a 0 and changes no other
    # quotient: a square of 1e-38 has a side of 1e-19 of the image.
    return intersection / xp.maximum(union, np.finfo(np.float32).tiny)


def clip(boxes: Array, window: Array | None = None) -> Array:
    """Clips boxes `[..., 4]` to a window `[4]`, by default the whole image.

    A box outside the window becomes a box of area 0 on its border; ymin <=
    ymax and xmin <= xmax remain true.
    """
    xp = _namespace(boxes)
    if window is None:
        window = np.array([0, 0, 1, 1], np.float32)
    low = xp.stack([window[0], window[1], window[0], window[1]])
    high = xp.stack([window[2], window[3], window[2], window[3]])
    return xp.minimum(xp.maximum(boxes, low), high)


def to_center(boxes: Array) -> Array:
    """Converts corners `[..., 4]` to centre form; inverts `to_corners`."""
    xp = _namespace(boxes)
    ymin, xmin, ymax, xmax = (boxes[..., i] for i in range(4))
    return xp.stack(
        [(ymax + ymin) / 2, (xmax + xmin) / 2, ymax - ymin, xmax - xmin],
        axis=-1,
    )


def to_corners(boxes: Array) -> Array:
    """Converts centre form `[..., 4]` to corners; inverts `to_center`."""
    xp = _namespace(boxes)
    cy, cx, height, width = (boxes[..., i] for i in range(4))
    return xp.stack(
        [cy - height / 2, cx - width / 2, cy + height / 2, cx + width / 2],
        axis=-1,
    )
