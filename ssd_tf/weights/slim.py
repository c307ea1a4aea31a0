"""Classifiers of TF-Slim: VGG-16, ResNet v1 and MobileNetV2, as trunks.

Names are those of research/slim/nets in tensorflow/models: vgg.py,
resnet_v1.py and mobilenet/mobilenet_v2.py.
"""

from collections.abc import Callable
from typing import NamedTuple

from ssd_tf.config.net import SSDParams
from ssd_tf.nets import resnet
from ssd_tf.weights import base, tf_checkpoint
from ssd_tf.weights.base import Imported, Tensors
from ssd_tf.weights.tf_checkpoint import read
from ssd_tf.weights.vgg_dense import reduce_fc

__all__ = ["SCOPES", "convert", "read"]

# Mean of preprocessing/vgg_preprocessing.py, for VGG and ResNet v1.
_VGG_MEAN = (123.68, 116.78, 103.94)
_DENSE = ("fc6/weights", "fc6/biases", "fc7/weights", "fc7/biases")


class _Network(NamedTuple):
    """Counterpart of a trunk in TF-Slim."""

    scope: str
    # TF-Slim's name behind the scope -> ours; None for the classifier's end.
    rename: Callable[[str], str | None]
    mean: tuple[float, ...]  # of RGB images
    scale: tuple[float, ...] = (1.0, 1.0, 1.0)


def convert(tensors: Tensors, params: SSDParams, ema: bool = False) -> Imported:
    """Converts a classifier's weights to those of a trunk.

    Args:
      tensors: arrays from `read`.
      params: a preset.
      ema: moving averages instead of the last weights, where there are any.
        TF-Slim's published figures of MobileNetV2 are of the averages.

    Returns:
      Variables of the trunk; of a VGG-16 with conv6 and conv7 made of fc6 and
      fc7. `params` with TF-Slim's whitening and variant of the trunk.

    Raises:
      UserError: the file has another network than `params`, or no moving
        averages.
    """
    scopes = {name.split("/", 1)[0] for name in tensors.arrays if "/" in name}
    network = _NETWORKS.get(params.trunk)
    if network is None or network.scope not in scopes:
        trunks = [t for t, n in _NETWORKS.items() if n.scope in scopes]
        what = f"the checkpoint's {', '.join(sorted(scopes)) or 'contents'}"
        raise base.misfit(what, params, base.presets_on(trunks))
    scope = f"{network.scope}/"
    variables = tf_checkpoint.take_weights(tensors, scope, ema, network.rename)
    if params.trunk == "vgg_16" and all(scope + n in tensors for n in _DENSE):
        dense = tf_checkpoint.take_weights(
            tensors, scope, ema, lambda name: name if name in _DENSE else None
        )
        variables |= reduce_fc(*(dense[name] for name in _DENSE))
    return base.classifier(
        variables,
        params,
        image_mean=network.mean,
        image_scale=network.scale,
        trunk_variant="slim",
    )


def _in_trunk(name: str) -> str | None:
    """Returns the name itself, of VGG's and ResNet's convolutions."""
    return name if name.startswith(("conv", "block")) else None


def _in_mobilenet_v2(name: str) -> str | None:
    """Returns the name in keras.applications, which has the same parts."""
    layer, _, variable = name.rpartition("/")
    normalized = layer.endswith("/BatchNorm")
    scope, _, part = layer.removesuffix("/BatchNorm").partition("/")
    if scope in ("Conv", "Conv_1"):
        plain, normal = {
            "Conv": ("Conv1", "bn_Conv1"),
            "Conv_1": ("Conv_1", "Conv_1_bn"),
        }[scope]
    elif scope.startswith("expanded_conv"):
        # The first block has no number there and a name of its own here.
        block = scope.replace("expanded_conv_", "block_")
        plain, normal = f"{block}_{part}", f"{block}_{part}_BN"
    else:
        return None
    variable = variable.removeprefix("depthwise_")
    return f"{normal if normalized else plain}/{variable}"


# By our name of the trunk. MobileNetV1 is left out: on a feature map of odd
# size, such as 75 cells of a 300 pixel input, Keras's strides start one cell
# later than TF-Slim's.
_NETWORKS = {
    **{
        name: _Network(name, _in_trunk, _VGG_MEAN)
        for name in ("vgg_16", *resnet.UNITS)
    },
    # To -1..1, as preprocessing/inception_preprocessing.py.
    "MobileNetV2": _Network(
        "MobilenetV2", _in_mobilenet_v2, (127.5,) * 3, (1 / 127.5,) * 3
    ),
}
# First parts of the names of those networks' variables.
SCOPES = tuple(network.scope for network in _NETWORKS.values())
