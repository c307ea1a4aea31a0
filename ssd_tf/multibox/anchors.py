"""Anchors (the paper's default boxes) from a configuration; NumPy only.

The flat order is layer, row, column, anchor of the cell: the C order of the
per-layer `[h, w, a]`, and the order of the concatenated network outputs.
"""

import math
from collections.abc import Sequence

import numpy as np

from ssd_tf.config import check_choice
from ssd_tf.config.net import SSDParams

# y [h, w, 1], x [h, w, 1]: centres; h [a], w [a]: sizes. All relative.
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
    """Anchors of one feature layer.

    Args:
      img_shape: height and width of the input, pixels.
      feat_shape: height and width of the feature layer, cells.
      sizes: side of the small square, and of the next layer's or 0, pixels.
      ratios: width over height of the other anchors.
      step: distance between the centres of neighbour cells, pixels; of rows
        and of columns, if they are two.
      offset: place of the centre in its cell, cells.
      clip: what is cut to [0, 1]: `none`, `sizes` or `all`.
      dtype: of the result.

    Returns:
      `(y [h, w, 1], x [h, w, 1], h [a], w [a])`, relative to the image. As in
      Caffe and the port, some centres and sizes reach beyond 1, unless
      clipped.
    """
    check_choice(SSDParams, "anchor_clip", clip)
    rows, columns = np.mgrid[0 : feat_shape[0], 0 : feat_shape[1]]
    step_y, step_x = np.broadcast_to(step, 2).astype(dtype)
    y = (rows.astype(dtype) + dtype(offset)) * step_y / img_shape[0]
    x = (columns.astype(dtype) + dtype(offset)) * step_x / img_shape[1]
    small, following = sizes
    # Per anchor (side in pixels, square root of its aspect ratio).
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
    """Distances of neighbour cells in y and x, pixels, per layer.

    A power of two where the layer, laid out with it, covers the image to a
    tenth; else the image's share of a cell. It gives what is typed into
    ssd_pascal.py: 8, 16, 32, 64, 100, 300 for the layers of SSD300.
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
    """Anchors of every feature layer, see `ssd_anchor_one_layer`.

    Args:
      params: of a built net, which knows its `feat_shapes`.
      img_shape: height and width that sizes and steps are taken of, pixels;
        `params.img_shape` by default.

    Raises:
      ValueError: `params` is a preset as it stands.
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
    """Per-layer anchors -> one float32 array `[A, 4]` of cy, cx, h, w."""
    layers = []
    for y, x, h, w in anchors:
        shape = y.shape[:2] + h.shape
        parts = [np.broadcast_to(part, shape) for part in (y, x, h, w)]
        layers.append(np.stack(parts, axis=-1).reshape(-1, 4))
    return np.concatenate(layers)
