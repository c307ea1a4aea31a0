"""The anchor axis: per-layer tensors and their concatenation.

Networks and callers have one tensor per feature layer, `[B, h, w, a, ...]`.
Inside `multibox` all layers are one tensor `[B, A, ...]`, A = sum(h * w * a),
in the order layer, row, column, anchor of the cell. The functions invert each
other:

  flatten_layers(split_layers(flat, anchors, 1), item_rank) == flat
"""

import math
from collections.abc import Sequence

import tensorflow as tf

from ssd_tf.multibox.anchors import LayerAnchors

# Per layer `[B, h, w, a, ...]`, or all layers as one `[B, A, ...]`.
Layers = Sequence[tf.Tensor] | tf.Tensor


def flatten_layers(layers: Layers, item_rank: int) -> tf.Tensor:
    """Concatenates per-layer tensors along one anchor axis.

    Args:
      layers: list of `[B, h, w, a, ...]`; one tensor `[B, A, ...]` is returned
        as it is.
      item_rank: number of axes behind the anchor axis: 0 for scores, 1 for
        logits and boxes.

    Returns:
      `[B, A, ...]`.
    """
    if hasattr(layers, "shape"):
        return tf.convert_to_tensor(layers)
    flat = []
    for layer in layers:
        layer = tf.convert_to_tensor(layer)
        item = layer.shape[layer.shape.rank - item_rank :]
        flat.append(tf.reshape(layer, [tf.shape(layer)[0], -1, *item]))
    return tf.concat(flat, axis=1)


def split_layers(
    flat: tf.Tensor, anchors: Sequence[LayerAnchors], axis: int
) -> list[tf.Tensor]:
    """Splits the anchor axis into layers, and each part into h, w and a.

    Args:
      flat: `[..., A, ...]`.
      anchors: anchors per layer, which say the shapes `[h, w, a]`.
      axis: index of the anchor axis: 1 with a batch axis before it, else 0.

    Returns:
      A list of `[..., h, w, a, ...]`.
    """
    shapes = [y.shape[:2] + h.shape for y, _, h, _ in anchors]
    parts = tf.split(flat, [math.prod(shape) for shape in shapes], axis)
    layers = []
    for part, shape in zip(parts, shapes, strict=True):
        before, after = tf.shape(part)[:axis], part.shape[axis + 1 :]
        layers.append(tf.reshape(part, tf.concat([before, shape, after], 0)))
    return layers
