"""ResNet v1 (He et al., 2015, table 1) as a trunk: image -> end points.

One definition serves the weights of Keras, torchvision and TF-Slim, which
differ in where a block strides and pads and in the epsilon of batch norm.
Scopes are TF-Slim's. Independent of classes and anchors.
"""

import dataclasses
from typing import Any

import keras

from ssd_tf.nets.layers import (
    BATCH_NORM_DECAY,
    arg_scope,
    batch_norm,
    conv2d,
    max_pool2d,
    pad2d,
)

# Name -> number of units in each of the four blocks.
UNITS = {
    "resnet_v1_50": (3, 4, 6, 3),
    "resnet_v1_101": (3, 4, 23, 3),
    "resnet_v1_152": (3, 8, 36, 3),
}
_CHANNELS = (64, 128, 256, 512)  # of the 3x3 convolutions of each block
_EXPANSION = 4  # channels of a unit's output by those of its 3x3 convolution


@dataclasses.dataclass(frozen=True)
class _Variant:
    """The points in which definitions of ResNet v1 differ."""

    strided_conv: str  # convolution that strides in a unit of stride 2
    strided_unit: int  # index of that unit in its block: 0 first, -1 last
    pool_pad: int  # cells of explicit padding before pool1; 0: SAME
    epsilon: float


_VARIANTS = {
    # keras.applications.ResNet50, as He et al. and Caffe.
    "keras": _Variant("conv1", 0, 1, 1.001e-5),
    # Known as v1.5.
    "torchvision": _Variant("conv2", 0, 1, 1e-5),
    # tf_slim's resnet_v1: a block ends with its stride.
    "slim": _Variant("conv2", -1, 0, 1e-5),
}


def resnet_v1(
    inputs: Any,
    name: str,
    variant: str = "keras",
    batch_norm_decay: float = BATCH_NORM_DECAY,
) -> tuple[Any, dict]:
    """Builds the trunk without its classifier.

    Args:
      inputs: Keras tensor `[B, h, w, 3]`: RGB, whitened.
      name: a key of `UNITS`.
      variant: `keras`, `torchvision` or `slim`.
      batch_norm_decay: decay of batch norm's moving averages.

    Returns:
      The last tensor, and the end points `stride4`, `stride8`, `stride16` and
      `stride32`: the last unit's output at each.
    """
    layout = _VARIANTS[variant]
    end_points = {}
    with (
        arg_scope([conv2d], activation_fn="relu", normalizer_fn=batch_norm),
        arg_scope([batch_norm], decay=batch_norm_decay, epsilon=layout.epsilon),
    ):
        net = pad2d(inputs, 3, scope="conv1.pad")
        net = conv2d(net, 64, 7, stride=2, padding="VALID", scope="conv1")
        net = pad2d(net, layout.pool_pad, scope="pool1.pad")
        padding = "VALID" if layout.pool_pad else "SAME"
        net = max_pool2d(net, 3, padding=padding, scope="pool1")
        reached = 4
        for number, units in enumerate(UNITS[name], 1):
            for unit, stride in enumerate(_strides(number, units, layout)):
                net = bottleneck(
                    net,
                    _CHANNELS[number - 1],
                    stride,
                    layout.strided_conv,
                    scope=f"block{number}.unit_{unit + 1}.bottleneck_v1",
                )
                reached *= stride
                end_points[f"stride{reached}"] = net
    return net, end_points


def _strides(number: int, units: int, layout: _Variant) -> list[int]:
    """Returns the strides of a block's units, at most one of which is 2.

    conv1 and pool1 reach stride 4. Of the four blocks three double it: all
    but the first where blocks begin with their stride, all but the last where
    they end with it.
    """
    strides = [1] * units
    unstrided = 1 if layout.strided_unit == 0 else len(_CHANNELS)
    if number != unstrided:
        strides[layout.strided_unit] = 2
    return strides


def bottleneck(
    inputs: Any, channels: int, stride: int, strided_conv: str, scope: str
):
    """Adds a unit: 1x1, 3x3 and 1x1 convolutions beside a shortcut.

    Args:
      inputs: Keras tensor `[B, h, w, c]`.
      channels: channels of the 3x3 convolution.
      stride: stride of the unit.
      strided_conv: convolution that strides, `conv1` or `conv2`.
      scope: prefix of the layers' names.
    """
    depth = _EXPANSION * channels
    first = stride if strided_conv == "conv1" else 1
    if inputs.shape[-1] == depth:
        # Takes every other cell, in the last unit of slim's blocks.
        shortcut = (
            max_pool2d(inputs, 1, stride=stride, scope=f"{scope}.subsample")
            if stride > 1
            else inputs
        )
    else:
        shortcut = conv2d(
            inputs,
            depth,
            1,
            stride=stride,
            activation_fn=None,
            scope=f"{scope}.shortcut",
        )
    net = conv2d(inputs, channels, 1, stride=first, scope=f"{scope}.conv1")
    # One cell on all four sides; SAME would pad an even input on two only.
    net = pad2d(net, 1, scope=f"{scope}.pad")
    net = conv2d(
        net,
        channels,
        3,
        stride=stride // first,
        padding="VALID",
        scope=f"{scope}.conv2",
    )
    net = conv2d(net, depth, 1, activation_fn=None, scope=f"{scope}.conv3")
    net = keras.layers.Add(name=f"{scope}.add")([shortcut, net])
    return keras.layers.Activation("relu", name=f"{scope}.relu")(net)
