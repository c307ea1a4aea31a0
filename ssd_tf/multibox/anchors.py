"""Anchors, the paper's default boxes, from a configuration; NumPy only.

In every cell of a feature layer stand `a` anchors of the same centre: a small
square, a larger one, and a rectangle of each further aspect ratio. SSD300's
layers of 38, 19, 10, 5, 3 and 1 cells a side have 4, 6, 6, 6, 4 and 4:
8732 anchors in all.
"""

import math
from collections.abc import Sequence

import numpy as np

from ssd_tf.config import check_choice
from ssd_tf.config.net import SSDParams

# Centres y [h, w, 1] and x [h, w, 1]; heights [a] and widths [a]. All are
# relative to the image.
LayerAnchors = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def ssd_anchor_one_layer(
    img_shape: tuple[int, int],
    feat_shape: tuple[int, int],
    sizes: tuple[float, float],
    ratios: Sequence[float],
    step: float | tuple[float, float],
    offset: float = 0.5,
    clip: str = "none",
    dtype: type = np.float32,
) -> LayerAnchors:
    """Computes the anchors of one feature layer (paper, section 2.2).

    With sides s and s' of this and the next layer's small square, and a width
    by height of r, the anchors of a cell are
      a square of side s,
      a square of side sqrt(s * s'), where s' is not 0, and
      for every ratio r a box of height s / sqrt(r) and width s * sqrt(r).

    Args:
      img_shape: height and width of the input, pixels.
      feat_shape: height and width of the feature layer, cells.
      sizes: s and s', pixels.
      ratios: values of r.
      step: distance between centres of neighbouring cells, pixels; two
        numbers are those of rows and of columns.
      offset: position of the centre in its cell, as a share of the cell.
      clip: values that are limited to 1: `none`, `sizes`, or `all` (sizes
        and centres).
      dtype: dtype of the result.

    Returns:
      `(y [h, w, 1], x [h, w, 1], h [a], w [a])`, relative to the image. As in
      Caffe and the port, some centres and sizes are above 1 unless clipped.
    """
    check_choice(SSDParams, "anchor_clip", clip)
    rows, columns = np.mgrid[0 : feat_shape[0], 0 : feat_shape[1]]
    step_y, step_x = np.broadcast_to(step, 2).astype(dtype)
    y = (rows.astype(dtype) + dtype(offset)) * step_y / img_shape[0]
    x = (columns.astype(dtype) + dtype(offset)) * step_x / img_shape[1]
    small, following = sizes
    # Per anchor (side of the square of equal area in pixels, sqrt(r)).
    shapes = [(small, 1.0)]
    if following:
        shapes.append((math.sqrt(small * following), 1.0))
    shapes += [(small, math.sqrt(ratio)) for ratio in ratios]
    h = np.array([side / img_shape[0] / root for side, root in shapes], dtype)
    w = np.array([side / img_shape[1] * root for side, root in shapes], dtype)
    if clip != "none":
        h, w = np.minimum(h, 1), np.minimum(w, 1)
    if clip == "all":
        y, x = np.minimum(y, 1), np.minimum(x, 1)
    return y[..., None], x[..., None], h, w


def steps(
    img_shape: tuple[int, int], feat_shapes: Sequence[tuple[int, int]]
) -> tuple[tuple[float, float], ...]:
    """Computes the distances of neighbouring cells in y and x per layer.

    The nearest power of two if cells of that side then cover the image within
    10 %, else the image's side divided by the number of cells. For SSD300 these
    are the constants of ssd_pascal.py: 8, 16, 32, 64, 100, 300 (38 * 8 = 304
    and 5 * 64 = 320 are near 300, but 3 * 128 = 384 is not).

    Args:
      img_shape: height and width of the input, pixels.
      feat_shapes: height and width of every feature layer, cells.

    Returns:
      Per layer the steps of rows and of columns, pixels.
    """

    def step(pixels: int, cells: int) -> float:
        power = 2.0 ** round(math.log2(pixels / cells))
        fits = abs(power * cells / pixels - 1) <= 0.1
        return power if fits else pixels / cells

    return tuple(
        (step(img_shape[0], h), step(img_shape[1], w)) for h, w in feat_shapes
    )


def ssd_anchors_all_layers(
    params: SSDParams, img_shape: tuple[int, int] | None = None
) -> list[LayerAnchors]:
    """Computes the anchors of every feature layer.

    Args:
      params: `SSDNet.params`, which has the net's `feat_shapes`.
      img_shape: height and width, in pixels, that anchors are relative to;
        `params.img_shape` by default.

    Returns:
      A list over the layers, see `ssd_anchor_one_layer`.

    Raises:
      ValueError: `params` is a preset, which has no `feat_shapes`.
    """
    if not params.feat_shapes:
        raise ValueError(
            "feat_shapes is empty: only a built net's params have anchors"
        )
    return [
        ssd_anchor_one_layer(
            img_shape or params.img_shape,
            feat_shape,
            sizes,
            ratios,
            step,
            params.anchor_offset,
            params.anchor_clip,
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
    """Concatenates per-layer anchors to float32 `[A, 4]`: cy, cx, h, w.

    The order is that of `anchor_axis`: layer, row, column, anchor of the cell.
    """
    layers = []
    for y, x, h, w in anchors:
        shape = y.shape[:2] + h.shape
        parts = [np.broadcast_to(part, shape) for part in (y, x, h, w)]
        layers.append(np.stack(parts, axis=-1).reshape(-1, 4))
    return np.concatenate(layers)
