"""MobileNetV2 as a trunk: image -> end points.

keras.applications' own definition, so that its ImageNet weights load into it
by layer name. Knows nothing of classes or anchors.
"""

from typing import Any

import keras

# The expanded tensors before the trunk's next stride (Sandler et al., 2018,
# section 6.2), and its last one.
_END_POINTS = {
    "stride8": "block_6_expand_relu",
    "stride16": "block_13_expand_relu",
    "stride32": "out_relu",
}


def mobilenet_v2(
    inputs: Any, width_multiplier: float = 1.0, batch_norm_decay: float = 0.99
) -> tuple[Any, dict]:
    """The trunk without its classifier.

    Args:
      inputs: Keras tensor `[B, h, w, 3]`: RGB in [-1, 1].
      width_multiplier: of all channels (the paper's alpha).
      batch_norm_decay: of the moving averages. keras.applications sets
        0.999, with which a run of some hundred steps is evaluated on
        averages that still remember their initial values.

    Returns:
      The last tensor, and the end points `stride8`, `stride16`, `stride32`.
    """
    trunk = keras.applications.MobileNetV2(
        input_tensor=inputs,
        alpha=width_multiplier,
        include_top=False,
        weights=None,
    )
    for layer in trunk.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = batch_norm_decay
    end_points = {
        name: trunk.get_layer(layer).output
        for name, layer in _END_POINTS.items()
    }
    return trunk.output, end_points
