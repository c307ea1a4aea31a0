"""A trunk, extra layers and multibox heads: the whole network, slim-style.

Knows nothing of anchors' places, of data or of training.
"""

from collections.abc import Sequence
from typing import Any

import keras

from ssd_tf.config import check_choice
from ssd_tf.config.net import ExtraBlock, SSDParams
from ssd_tf.nets import applications, resnet, vgg
from ssd_tf.nets.layers import (
    arg_scope,
    batch_norm,
    conv2d,
    l2_normalization,
    pad2d,
    separable_conv2d,
)


def ssd_arg_scope(params: SSDParams):
    """Defaults of the layers: ReLU, or ReLU6 in SSDLite; batch norm or not."""
    return arg_scope(
        [conv2d, separable_conv2d],
        activation_fn="relu6" if params.separable else "relu",
        normalizer_fn=batch_norm if params.batch_norm else None,
    )


def trunk(inputs: Any, params: SSDParams) -> tuple[Any, dict]:
    """The base network: its last tensor and its end points.

    Raises:
      ValueError: nobody knows a trunk or a variant of that name.
    """
    check_choice(SSDParams, "trunk_variant", params.trunk_variant)
    if params.trunk == "vgg_16":
        return vgg.vgg_16(inputs, params.dropout_rate)
    if params.trunk in resnet.UNITS:
        return resnet.resnet_v1(inputs, params.trunk, params.trunk_variant)
    return applications.application(
        inputs, params.trunk, params.trunk_variant, params.width_multiplier
    )


def extra_layer(inputs: Any, block: ExtraBlock, separable: bool, scope: str):
    """A 1x1 reduction and a (depthwise separable) convolution.

    Args:
      inputs: Keras tensor `[B, h, w, c]`.
      block: channels, kernel, stride and padding.
      separable: 3x3 depthwise and 1x1 instead of a full convolution.
      scope: of the layers, `conv1x1` and `conv3x3` in it.
    """
    size = f"conv{block.kernel}x{block.kernel}"
    net = conv2d(inputs, block.reduction, 1, scope=f"{scope}.conv1x1")
    # At a smaller input than the preset's, a map may not fill the kernel.
    pad = tuple(
        max(block.padding, -(-(block.kernel - side) // 2))
        for side in net.shape[1:3]
    )
    net = pad2d(net, pad, scope=f"{scope}.pad")
    options = dict(stride=block.stride, padding="VALID")
    if not separable:
        return conv2d(
            net,
            block.channels,
            block.kernel,
            scope=f"{scope}.{size}",
            **options,
        )
    net = separable_conv2d(
        net, None, block.kernel, scope=f"{scope}.{size}", **options
    )
    return conv2d(net, block.channels, 1, scope=f"{scope}.expand1x1")


def ssd_multibox_layer(
    inputs: Any,
    num_classes: int,
    num_anchors: int,
    normalization: float,
    separable: bool,
    scope: str,
) -> tuple[Any, Any]:
    """Logits `[B, h, w, a, C]` and localisations `[B, h, w, a, 4]` of a layer.

    Channels are anchor-major: all values of a cell's first anchor, then the
    next one's. Both are computed in float32 whatever the network's precision.
    """
    net = inputs
    if normalization > 0:
        net = l2_normalization(
            net, normalization, scope=f"{scope}.L2Normalization"
        )

    def head(values: int, name: str, kind: str):
        options = {"dtype": "float32", "scope": f"{scope}.{name}"}
        channels = num_anchors * values
        if separable:
            out = separable_conv2d(net, channels, 3, **options)
        else:
            out = conv2d(
                net,
                channels,
                3,
                activation_fn=None,
                normalizer_fn=None,
                **options,
            )
        shape = (*out.shape[1:3], num_anchors, values)
        return keras.layers.Reshape(
            shape, dtype="float32", name=f"{scope}.{kind}"
        )(out)

    localisations = head(4, "conv_loc", "localisations")
    logits = head(num_classes, "conv_cls", "logits")
    return logits, localisations


def ssd_net(inputs: Any, params: SSDParams) -> dict[str, Any]:
    """The whole network, slim-style.

    Args:
      inputs: Keras tensor `[B, H, W, 3]`, whitened as the trunk wants it.
      params: what to build.

    Returns:
      `logits` and `localisations`: lists over `params.feat_layers`;
      `end_points`: dict of all named feature maps.
    """
    with ssd_arg_scope(params):
        net, end_points = trunk(inputs, params)
        sources = _sources(end_points, params.trunk_layers)
        if params.fpn_channels:
            sources = feature_pyramid(
                sources, params.fpn_channels, params.separable
            )
            net = sources[-1]
        extras = zip(params.extra_layers, params.extra_blocks, strict=True)
        for name, block in extras:
            net = extra_layer(net, block, params.separable, scope=name)
            end_points[name] = net
            sources.append(net)
        heads = [
            ssd_multibox_layer(
                source,
                params.num_classes,
                num_anchors,
                normalization,
                params.separable,
                scope=f"{name}_box",
            )
            for source, name, num_anchors, normalization in zip(
                sources,
                params.feat_layers,
                params.anchors_per_cell,
                params.normalizations,
                strict=True,
            )
        ]
    logits, localisations = (list(part) for part in zip(*heads, strict=True))
    return {
        "logits": logits,
        "localisations": localisations,
        "end_points": end_points,
    }


def _sources(end_points: dict[str, Any], names: Sequence[str]) -> list[Any]:
    missing = [name for name in names if name not in end_points]
    if missing:
        raise ValueError(
            f"the trunk has no end point {missing[0]!r}, only "
            f"{', '.join(end_points)}"
        )
    return [end_points[name] for name in names]


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
