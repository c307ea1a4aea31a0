"""Anchors (the paper's default boxes) from a configuration; NumPy only.

The flat order is layer, row, column, anchor of the cell: the C order of the
per-layer `[h, w, a]`, and the order of the concatenated network outputs.
"""

import math
from collections.abc import Sequence

import numpy as np

from ssd_tf.config import SSDParams

# y [h, w, 1], x [h, w, 1]: centres; h [a], w [a]: sizes. All relative.
LayerAnchors = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def ssd_anchor_one_layer(
    img_shape: tuple[int, int],
    feat_shape: tuple[int, int],
    sizes: tuple[float, float],
    ratios: Sequence[float],
    step: float,
    offset: float = 0.5,
    dtype: type = np.float32,
) -> LayerAnchors:
    """Anchors of one feature layer.

    Args:
      img_shape: height and width of the input, pixels.
      feat_shape: height and width of the feature layer, cells.
      sizes: side of the small square, and of the next layer's, pixels.
      ratios: width over height of the other anchors.
      step: distance between the centres of neighbour cells, pixels.
      offset: place of the centre in its cell, cells.
      dtype: of the result.

    Returns:
      `(y [h, w, 1], x [h, w, 1], h [a], w [a])`, relative to the image; not
      clipped: some centres and sizes reach beyond 1, as in Caffe and the port.
    """
    rows, columns = np.mgrid[0 : feat_shape[0], 0 : feat_shape[1]]
    y = (rows.astype(dtype) + dtype(offset)) * dtype(step) / img_shape[0]
    x = (columns.astype(dtype) + dtype(offset)) * dtype(step) / img_shape[1]
    small, following = sizes
    # Per anchor (side in pixels, square root of its aspect ratio).
    shapes = [(small, 1.0), (math.sqrt(small * following), 1.0)]
    shapes += [(small, math.sqrt(ratio)) for ratio in ratios]
    h = np.array([side / img_shape[0] / root for side, root in shapes], dtype)
    w = np.array([side / img_shape[1] * root for side, root in shapes], dtype)
    return y[..., None], x[..., None], h, w


def ssd_anchors_all_layers(
    params: SSDParams, img_shape: tuple[int, int] | None = None
) -> list[LayerAnchors]:
    """Anchors of every feature layer, see `ssd_anchor_one_layer`."""
    return [
        ssd_anchor_one_layer(
            img_shape or params.img_shape,
            feat_shape,
            sizes,
            ratios,
            step,
            params.anchor_offset,
        )
        for feat_shape, sizes, ratios, step in zip(
            params.feat_shapes,
            params.anchor_sizes,
            params.anchor_ratios,
            params.anchor_steps,
            strict=True,
        )
    ]


def flatten_anchors(anchors: Sequence[LayerAnchors]) -> np.ndarray:
    """Per-layer anchors -> one float32 array `[A, 4]` of cy, cx, h, w."""
    layers = []
    for y, x, h, w in anchors:
        shape = y.shape[:2] + h.shape
        parts = [np.broadcast_to(part, shape) for part in (y, x, h, w)]
        layers.append(np.stack(parts, axis=-1).reshape(-1, 4))
    return np.concatenate(layers)
