"""Names in PyTorch state dicts by ours, and settings that the nets assume.

Sources: torchvision 0.28, `models/detection/ssd.py`, `models/vgg.py`,
`models/resnet.py` and `models/mobilenetv2.py`; ssd.pytorch (amdegroot),
`ssd.py`. Independent of arrays.
"""

import re
from collections.abc import Callable, Sequence

from ssd_tf.nets import vgg

# torchvision whitens an image of 0..1: its SSD in models/detection/ssd.py...
TORCHVISION_SSD = {
    "image_mean": tuple(255 * mean for mean in (0.48235, 0.45882, 0.40784)),
    "image_scale": (1.0, 1.0, 1.0),
    "trunk_variant": "torchvision",
    # DefaultBoxGenerator clamps widths and heights.
    "anchor_clip": "sizes",
}
# ... and its classifiers in transforms/_presets.py.
TORCHVISION = {
    "image_mean": tuple(255 * mean for mean in (0.485, 0.456, 0.406)),
    "image_scale": tuple(1 / (255 * std) for std in (0.229, 0.224, 0.225)),
    "trunk_variant": "torchvision",
}

# Index in VGG's list of layers, before pool4, where torchvision's SSD cuts it.
_VGG_POOL4 = 23
# Weights and biases of torchvision's fc6 and fc7.
VGG_DENSE = tuple(
    f"classifier.{layer}.{part}"
    for layer in (0, 3)
    for part in ("weight", "bias")
)
# Our names of batch norm layers: slim's, and keras.applications' MobileNetV2's.
_IS_NORM = re.compile(r"BatchNorm$|_BN$|_bn$|^bn_")
_CONVOLUTION = {"weights": "weight", "biases": "bias"}
_BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

# COCO's categories as runs of consecutive ids: first id and names. Ten of 90
# ids are unused.
_COCO_RUNS = {
    1: "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,"
    "traffic light,fire hydrant",
    13: "stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,"
    "bear,zebra,giraffe",
    27: "backpack,umbrella",
    31: "handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,"
    "baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle",
    46: "wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,"
    "broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed",
    67: "dining table",
    70: "toilet",
    72: "tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,"
    "sink,refrigerator",
    84: "book,clock,vase,scissors,teddy bear,hair drier,toothbrush",
}
_COCO_NAMES = {
    first + index: name
    for first, names in _COCO_RUNS.items()
    for index, name in enumerate(names.split(","))
}
# Class k of torchvision's detectors is COCO's category k, also if it is unused.
COCO_90 = tuple(_COCO_NAMES.get(k, f"unused_{k}") for k in range(1, 91))


def _variables(layers: dict[str, str]) -> dict[str, str]:
    """Returns the names of variables by the names of layers.

    A file need not have all: a convolution before batch norm has no bias.
    """
    names = {}
    for ours, theirs in layers.items():
        parts = _BATCH_NORM if _IS_NORM.search(ours) else _CONVOLUTION
        for our_part, their_part in parts.items():
            names[f"{ours}/{our_part}"] = f"{theirs}.{their_part}"
    return names


def _vgg_indices() -> dict[str, int]:
    """Returns VGG-16's convolutions and their index among all its layers."""
    indices, index = {}, 0
    for scope, convolutions, _ in vgg.BLOCKS:
        for number in range(1, convolutions + 1):
            indices[f"{scope}/{scope}_{number}"] = index
            index += 2  # the convolution and its ReLU
        index += 1  # the pooling
    return indices


def vgg_16(prefix: str) -> dict[str, str]:
    """Returns the names of VGG-16's convolutions, up to SSD's conv7.

    torchvision's VGG-16 has fc6 and fc7 instead of the last two.

    Args:
      prefix: text before the index in the list of all layers; empty in
        `vgg16_reducedfc.pth`.
    """
    indices = _vgg_indices() | {"conv6": 31, "conv7": 33}
    return _variables({ours: f"{prefix}{i}" for ours, i in indices.items()})


def ssd_pytorch(layers: Sequence[str]) -> dict[str, str]:
    """Returns the names of ssd.pytorch's SSD300.

    Args:
      layers: feature layers; from the third on each is a pair in `extras`.
    """
    return vgg_16("vgg.") | _heads_and_extras(
        layers,
        ("loc", "conf", "L2Norm.weight"),
        lambda index: (f"extras.{2 * index}", f"extras.{2 * index + 1}"),
    )


def torchvision_ssd(layers: Sequence[str]) -> dict[str, str]:
    """Returns the names of torchvision's `ssd300_vgg16`.

    Args:
      layers: feature layers; the first ends `backbone.features`, every other
        one is a member of `backbone.extra`.
    """
    trunk = {
        ours: f"backbone.features.{index}"
        if index < _VGG_POOL4
        else f"backbone.extra.0.{index - _VGG_POOL4}"
        for ours, index in _vgg_indices().items()
    }
    trunk |= {"conv6": "backbone.extra.0.7.1", "conv7": "backbone.extra.0.7.3"}
    head = "head.{}_head.module_list"
    return _variables(trunk) | _heads_and_extras(
        layers,
        (
            head.format("regression"),
            head.format("classification"),
            "backbone.scale_weight",
        ),
        lambda index: (
            f"backbone.extra.{index + 1}.0",
            f"backbone.extra.{index + 1}.2",
        ),
    )


def _heads_and_extras(
    layers: Sequence[str],
    heads: tuple[str, str, str],
    extra: Callable[[int], tuple[str, str]],
) -> dict[str, str]:
    """Returns the names of an SSD300 behind its trunk.

    Args:
      layers: feature layers.
      heads: names of the lists of box and class heads, and of the scale of
        the L2 norm.
      extra: returns the names of an extra layer's two convolutions.
    """
    boxes, classes, scale = heads
    names = {}
    for index, layer in enumerate(layers):
        names[f"{layer}_box/conv_loc"] = f"{boxes}.{index}"
        names[f"{layer}_box/conv_cls"] = f"{classes}.{index}"
    for index, layer in enumerate(layers[2:]):
        names[f"{layer}/conv1x1"], names[f"{layer}/conv3x3"] = extra(index)
    gamma = {f"{layers[0]}_box/L2Normalization/gamma": scale}
    return _variables(names) | gamma


def resnet(units: Sequence[int]) -> dict[str, str]:
    """Returns the names of torchvision's ResNet with bottlenecks.

    Args:
      units: number of units of each of the four blocks.
    """
    layers = {"conv1": "conv1", "conv1/BatchNorm": "bn1"}
    for block, count in enumerate(units, 1):
        for unit in range(count):
            ours = f"block{block}/unit_{unit + 1}/bottleneck_v1"
            theirs = f"layer{block}.{unit}"
            for k in (1, 2, 3):
                layers[f"{ours}/conv{k}"] = f"{theirs}.conv{k}"
                layers[f"{ours}/conv{k}/BatchNorm"] = f"{theirs}.bn{k}"
            # Only the first unit of a block has one.
            layers[f"{ours}/shortcut"] = f"{theirs}.downsample.0"
            layers[f"{ours}/shortcut/BatchNorm"] = f"{theirs}.downsample.1"
    return _variables(layers)


def mobilenet_v2() -> dict[str, str]:
    """Returns the names of torchvision's MobileNetV2.

    Ours are those of keras.applications.
    """
    layers = {"Conv1": "features.0.0", "bn_Conv1": "features.0.1"}
    layers |= {"Conv_1": "features.18.0", "Conv_1_bn": "features.18.1"}
    # The first block does not expand.
    block = {"depthwise": "0.0", "depthwise_BN": "0.1"}
    block |= {"project": "1", "project_BN": "2"}
    for part, place in block.items():
        layers[f"expanded_conv_{part}"] = f"features.1.conv.{place}"
    block = {"expand": "0.0", "expand_BN": "0.1"}
    block |= {"depthwise": "1.0", "depthwise_BN": "1.1"}
    block |= {"project": "2", "project_BN": "3"}
    for number in range(1, 17):
        for part, place in block.items():
            theirs = f"features.{number + 1}.conv.{place}"
            layers[f"block_{number}_{part}"] = theirs
    return _variables(layers)
