"""ResNet v1 (He et al., 2015, table 1) as a trunk: image -> end points.

One definition for the weights of three: they differ in where a block strides
and pads and in the epsilon of batch norm. Scopes are TF-Slim's. Knows nothing
of classes or anchors.
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

# Units of the four blocks.
UNITS = {
    "resnet_v1_50": (3, 4, 6, 3),
    "resnet_v1_101": (3, 4, 23, 3),
    "resnet_v1_152": (3, 8, 36, 3),
}
_CHANNELS = (64, 128, 256, 512)  # of a unit's 3x3; its output has four times
_EXPANSION = 4


@dataclasses.dataclass(frozen=True)
class _Variant:
    """What a definition does its own way."""

    strided_conv: str  # of a unit with stride 2
    strided_unit: int  # index in its block: 0 first, -1 last
    pool_pad: int  # explicit cells around pool1; 0 pads as SAME does
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
    """The trunk without its classifier.

    Args:
      inputs: Keras tensor `[B, h, w, 3]`: RGB, whitened.
      name: a key of `UNITS`.
      variant: `keras`, `torchvision` or `slim`.
      batch_norm_decay: of the moving averages.

    Returns:
      The last tensor, and the end points `stride4`, `stride8`, `stride16` and
      `stride32`: the last unit's output at each.
    """
    ways = _VARIANTS[variant]
    end_points = {}
    with (
        arg_scope([conv2d], activation_fn="relu", normalizer_fn=batch_norm),
        arg_scope([batch_norm], decay=batch_norm_decay, epsilon=ways.epsilon),
    ):
        net = pad2d(inputs, 3, scope="conv1.pad")
        net = conv2d(net, 64, 7, stride=2, padding="VALID", scope="conv1")
        net = pad2d(net, ways.pool_pad, scope="pool1.pad")
        padding = "VALID" if ways.pool_pad else "SAME"
        net = max_pool2d(net, 3, padding=padding, scope="pool1")
        reached = 4
        for number, units in enumerate(UNITS[name], 1):
            for unit, stride in enumerate(_strides(number, units, ways)):
                net = bottleneck(
                    net,
                    _CHANNELS[number - 1],
                    stride,
                    ways.strided_conv,
                    scope=f"block{number}.unit_{unit + 1}.bottleneck_v1",
                )
                reached *= stride
                end_points[f"stride{reached}"] = net
    return net, end_points


def _strides(number: int, units: int, ways: _Variant) -> list[int]:
    """The stride of every unit of a block: 8, 16 and 32 are reached once."""
    strides = [1] * units
    resting = 1 if ways.strided_unit == 0 else len(_CHANNELS)
    if number != resting:
        strides[ways.strided_unit] = 2
    return strides


def bottleneck(
    inputs: Any, channels: int, stride: int, strided_conv: str, scope: str
):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut.

    Args:
      inputs: Keras tensor `[B, h, w, c]`.
      channels: of the 3x3 convolution.
      stride: of the unit.
      strided_conv: the convolution that has it, `conv1` or `conv2`.
      scope: of the layers.
    """
    depth = _EXPANSION * channels
    first = stride if strided_conv == "conv1" else 1
    if inputs.shape[-1] == depth:
        # Every other cell, where slim's last unit strides.
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
    # One cell on all four sides; SAME would pad an even input on two.
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
