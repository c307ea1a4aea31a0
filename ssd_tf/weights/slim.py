"""Classifiers of TF-Slim: VGG-16, ResNet v1 and MobileNetV2, as trunks.

Names are those of research/slim/nets in tensorflow/models: vgg.py,
resnet_v1.py and mobilenet/mobilenet_v2.py.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from ssd_tf.command import UserError
from ssd_tf.config.net import SSDParams
from ssd_tf.config.presets import PRESETS
from ssd_tf.weights import tf_checkpoint, vgg_dense
from ssd_tf.weights.imported import Imported, Tensors
from ssd_tf.weights.tf_checkpoint import read

__all__ = ["SCOPES", "convert", "read"]

# Of preprocessing/vgg_preprocessing.py, for VGG and ResNet v1.
_VGG_MEAN = (123.68, 116.78, 103.94)
# Of preprocessing/inception_preprocessing.py: -1..1.
_INCEPTION_MEAN = (127.5,) * 3
_INCEPTION_SCALE = (1 / 127.5,) * 3
_FC = ("fc6/weights", "fc6/biases", "fc7/weights", "fc7/biases")


@dataclasses.dataclass(frozen=True)
class _Network:
    """A trunk's counterpart in TF-Slim."""

    scope: str
    # TF-Slim's name behind the scope -> ours; None for the classifier's end.
    rename: Callable[[str], str | None]
    image_mean: tuple[float, float, float] = _VGG_MEAN
    image_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


def convert(tensors: Tensors, params: SSDParams, ema: bool = False) -> Imported:
    """A classifier's weights as a trunk's.

    Args:
      tensors: from `read`.
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
    network = _network(tensors, params)
    if ema:
        tf_checkpoint.check_averages(tensors)
    variables = _renamed(tensors, network, ema)
    if params.trunk == "vgg_16":
        variables.update(_reduced(tensors, network.scope, ema))
    tf_checkpoint.take_training_state(tensors)
    params = dataclasses.replace(
        params,
        num_classes=1,
        image_mean=network.image_mean,
        image_scale=network.image_scale,
        trunk_variant="slim",
    )
    return Imported(variables, params, class_names=(), detector=False)


def _network(tensors: Tensors, params: SSDParams) -> _Network:
    """The trunk's network, which must be the one in the file."""
    scopes = {name.split("/", 1)[0] for name in tensors.arrays if "/" in name}
    network = _NETWORKS.get(params.trunk)
    if network is None or network.scope not in scopes:
        trunks = [t for t, n in _NETWORKS.items() if n.scope in scopes]
        fitting = [p for p, row in PRESETS.items() if row.trunk in trunks]
        raise UserError(
            f"the checkpoint's {', '.join(sorted(scopes)) or 'contents'} "
            f"does not fit --model_name={params.model_name}, whose trunk is "
            f"{params.trunk}; it fits {', '.join(fitting) or 'no preset'}"
        )
    return network


def _renamed(
    tensors: Tensors, network: _Network, ema: bool
) -> dict[str, np.ndarray]:
    variables = {}
    for name in tensors.arrays:
        scope, _, rest = name.partition("/")
        if scope != network.scope or tf_checkpoint.is_training_state(
            tensors, name
        ):
            continue
        ours = network.rename(rest)
        if ours is not None:
            variables[ours] = tf_checkpoint.averaged(tensors, name, ema)
    return variables


def _reduced(tensors: Tensors, scope: str, ema: bool) -> dict[str, np.ndarray]:
    """conv6 and conv7, if the file has the dense layers; all or nothing."""
    names = [f"{scope}/{name}" for name in _FC]
    if not all(name in tensors for name in names):
        return {}
    arrays = [tf_checkpoint.averaged(tensors, name, ema) for name in names]
    try:
        return vgg_dense.reduce_fc(*arrays)
    except ValueError as error:
        raise UserError(
            f"fc6 and fc7 of the checkpoint's {scope} cannot be reduced "
            f"({error}); take a VGG-16 with dense layers of 4096"
        ) from error


def _in_vgg(name: str) -> str | None:
    return name if name.startswith("conv") else None


def _in_resnet(name: str) -> str | None:
    return name if name.startswith(("conv1/", "block")) else None


def _in_mobilenet_v2(name: str) -> str | None:
    """The name in keras.applications, which is made of the same parts."""
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
    "vgg_16": _Network("vgg_16", _in_vgg),
    "resnet_v1_50": _Network("resnet_v1_50", _in_resnet),
    "resnet_v1_101": _Network("resnet_v1_101", _in_resnet),
    "resnet_v1_152": _Network("resnet_v1_152", _in_resnet),
    "MobileNetV2": _Network(
        "MobilenetV2", _in_mobilenet_v2, _INCEPTION_MEAN, _INCEPTION_SCALE
    ),
}
# What stands first in the names of those networks' variables.
SCOPES = tuple(network.scope for network in _NETWORKS.values())
