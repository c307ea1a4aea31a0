"""A feature pyramid (Lin et al., 2017) between a trunk and its heads.

Knows nothing of classes or anchors.
"""

from collections.abc import Sequence
from typing import Any

import keras

from ssd_tf.nets.layers import conv2d, separable_conv2d


def feature_pyramid(
    sources: Sequence[Any], channels: int, separable: bool, scope: str = "fpn"
) -> list[Any]:
    """Adds to every feature map what the coarser ones have seen (figure 3).

    Args:
      sources: Keras tensors `[B, h, w, c]`, fine to coarse.
      channels: of every level.
      separable: depthwise 3x3 and 1x1 instead of a full 3x3 (TFOD's fpnlite).
      scope: of the layers.

    Returns:
      As many tensors, `[B, h, w, channels]`.
    """
    levels: list[Any] = []
    for index in reversed(range(len(sources))):
        name = f"{scope}.level{index}"
        net = conv2d(
            sources[index],
            channels,
            1,
            activation_fn=None,
            scope=f"{name}.lateral",
        )
        if levels:
            # By size, not by factor: a map of odd size is no exact half.
            upsampled = keras.layers.Resizing(
                *net.shape[1:3],
                interpolation="nearest",
                name=f"{name}.upsample",
            )(levels[0])
            net = keras.layers.Add(name=f"{name}.add")([net, upsampled])
        levels.insert(0, net)
    return [
        _smoothed(net, channels, separable, f"{scope}.level{index}")
        for index, net in enumerate(levels)
    ]


def _smoothed(net, channels, separable, name):
    """A 3x3 convolution against the steps of the nearest neighbours."""
    if not separable:
        return conv2d(net, channels, 3, scope=f"{name}.smooth")
    net = separable_conv2d(net, None, 3, scope=f"{name}.smooth")
    return conv2d(net, channels, 1, scope=f"{name}.smooth1x1")
