"""The whole network (paper, figure 2): trunk, extra layers, multibox heads.

Independent of where anchors lie, of data and of training.
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
    """Sets ReLU (ReLU6 in SSDLite) and batch norm, if any, for all layers."""
    return arg_scope(
        [conv2d, separable_conv2d],
        activation_fn="relu6" if params.separable else "relu",
        normalizer_fn=batch_norm if params.batch_norm else None,
    )


def trunk(inputs: Any, params: SSDParams) -> tuple[Any, dict]:
    """Builds the base network; returns its last tensor and its end points.

    Raises:
      ValueError: the trunk or its variant is unknown.
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
    """Adds an extra feature layer: a 1x1 reduction and a convolution.

    Args:
      inputs: Keras tensor `[B, h, w, c]`.
      block: channels, kernel, stride and padding.
      separable: depthwise and 1x1 in place of a full convolution.
      scope: prefix of the layers' names, `conv1x1` and `conv3x3`.
    """
    size = f"conv{block.kernel}x{block.kernel}"
    net = conv2d(inputs, block.reduction, 1, scope=f"{scope}.conv1x1")
    # An input smaller than the preset's can make a map smaller than the
    # kernel: pad until it fits.
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
    """Adds the heads of one feature layer (paper, section 2.1).

    Each cell predicts, from its 3x3 neighbourhood, C logits and 4 offsets for
    each of its anchors. Channels are anchor-major: all values of the first
    anchor, then those of the next. Computed in float32 under any policy.

    Args:
      inputs: Keras tensor `[B, h, w, c]`.
      num_classes: C, with the background.
      num_anchors: a, anchors of a cell.
      normalization: initial scale of the L2 normalisation before the heads;
        0 or less for none.
      separable: depthwise and 1x1 in place of full convolutions (SSDLite).
      scope: prefix of the layers' names.

    Returns:
      Logits `[B, h, w, a, C]` and localisations `[B, h, w, a, 4]`.
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
    """Builds the whole network.

    Args:
      inputs: Keras tensor `[B, H, W, 3]`, whitened for the trunk.
      params: description of the network.

    Returns:
      `logits` and `localisations`: lists over `params.feat_layers`;
      `end_points`: dict of all named feature maps.

    Raises:
      ValueError: the trunk is unknown or lacks a feature layer.
    """
    with ssd_arg_scope(params):
        # The base network: VGG's conv4_3 and conv7, or strides 8, 16, 32.
        net, end_points = trunk(inputs, params)
        missing = [x for x in params.trunk_layers if x not in end_points]
        if missing:
            raise ValueError(
                f"the trunk has no end point {missing[0]!r}, only "
                f"{', '.join(end_points)}"
            )
        sources = [end_points[name] for name in params.trunk_layers]
        if params.fpn_channels:
            sources = feature_pyramid(
                sources, params.fpn_channels, params.separable
            )
            net = sources[-1]
        # Extra layers, each smaller than the one before.
        extras = zip(params.extra_layers, params.extra_blocks, strict=True)
        for name, block in extras:
            net = extra_layer(net, block, params.separable, scope=name)
            end_points[name] = net
            sources.append(net)
        # One pair of heads per feature layer.
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


def feature_pyramid(
    sources: Sequence[Any], channels: int, separable: bool, scope: str = "fpn"
) -> list[Any]:
    """Adds the upsampled coarser map to every feature map.

    Feature Pyramid Networks (Lin et al., 2017), figure 3.

    Args:
      sources: Keras tensors `[B, h, w, c]`, fine to coarse.
      channels: channels of every level.
      separable: depthwise 3x3 and 1x1 in place of a full 3x3 (TFOD's fpnlite).
      scope: prefix of the layers' names.

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
            # To a size, not by a factor: 10 cells become 19, not 20.
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
    """Adds a 3x3 convolution, which smooths the nearest-neighbour steps."""
    if not separable:
        return conv2d(net, channels, 3, scope=f"{name}.smooth")
    net = separable_conv2d(net, None, 3, scope=f"{name}.smooth")
    return conv2d(net, channels, 1, scope=f"{name}.smooth1x1")
