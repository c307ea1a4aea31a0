"""Names in PyTorch state dicts by ours, and what the nets take for granted.

Sources: torchvision 0.28, `models/detection/ssd.py`, `models/vgg.py`,
`models/resnet.py` and `models/mobilenetv2.py`; ssd.pytorch (amdegroot),
`ssd.py`. Knows no arrays.
"""

from collections.abc import Sequence

from ssd_tf.config.presets import SSD_300_VGG
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
# data/config.py and data/voc0712.py of ssd.pytorch: taken from BGR, which is
# then turned into RGB. Its mean is Caffe's.
SSD_PYTORCH = {
    "image_mean": SSD_300_VGG.image_mean,
    "image_scale": (1.0, 1.0, 1.0),
}

# Where torchvision's SSD cuts VGG's list of layers in two, before pool4.
_VGG_POOL4 = 23
# torchvision's fc6 and fc7.
VGG_DENSE = tuple(
    f"classifier.{layer}.{part}"
    for layer in (0, 3)
    for part in ("weight", "bias")
)
_BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

# COCO's categories as runs of ids, first id and names: ten of 90 ids have
# none.
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
# Class k of torchvision's detectors is COCO's category k, also where there is
# none.
COCO_90 = tuple(_COCO_NAMES.get(k, f"unused_{k}") for k in range(1, 91))


def _convolution(ours: str, theirs: str) -> dict[str, str]:
    return {
        f"{ours}/weights": f"{theirs}.weight",
        f"{ours}/biases": f"{theirs}.bias",
    }


def _normalized(ours: str, theirs: str, norm: str, their_norm: str):
    """A convolution without bias and its batch norm, of other names."""
    names = {f"{ours}/weights": f"{theirs}.weight"}
    for our_part, their_part in _BATCH_NORM.items():
        names[f"{norm}/{our_part}"] = f"{their_norm}.{their_part}"
    return names


def _all_convolutions(layers: dict[str, str]) -> dict[str, str]:
    names = {}
    for ours, theirs in layers.items():
        names |= _convolution(ours, theirs)
    return names


def _vgg_indices() -> dict[str, int]:
    """VGG-16's convolutions and their places in a list of all its layers."""
    indices, index = {}, 0
    for scope, convolutions, _ in vgg.BLOCKS:
        for number in range(1, convolutions + 1):
            indices[f"{scope}/{scope}_{number}"] = index
            index += 2  # the convolution and its ReLU
        index += 1  # the pooling
    return indices


def vgg_features(prefix: str) -> dict[str, str]:
    """VGG-16's thirteen 3x3 convolutions.

    Args:
      prefix: what stands before the index in the list of all layers.
    """
    return _all_convolutions(
        {ours: f"{prefix}{index}" for ours, index in _vgg_indices().items()}
    )


def reduced_vgg(prefix: str) -> dict[str, str]:
    """VGG-16 up to conv7 in ssd.pytorch: `vgg16_reducedfc.pth`.

    Args:
      prefix: what stands before the index in the list of all layers.
    """
    dense = {"conv6": f"{prefix}31", "conv7": f"{prefix}33"}
    return vgg_features(prefix) | _all_convolutions(dense)


def ssd_pytorch(layers: Sequence[str]) -> dict[str, str]:
    """ssd.pytorch's SSD300.

    Args:
      layers: the feature layers; from the third on each is a pair in
        `extras`.
    """
    names = {}
    for index, layer in enumerate(layers[2:]):
        names[f"{layer}/conv1x1"] = f"extras.{2 * index}"
        names[f"{layer}/conv3x3"] = f"extras.{2 * index + 1}"
    for index, layer in enumerate(layers):
        names[f"{layer}_box/conv_loc"] = f"loc.{index}"
        names[f"{layer}_box/conv_cls"] = f"conf.{index}"
    gamma = {f"{layers[0]}_box/L2Normalization/gamma": "L2Norm.weight"}
    return reduced_vgg("vgg.") | _all_convolutions(names) | gamma


def torchvision_ssd(layers: Sequence[str]) -> dict[str, str]:
    """torchvision's `ssd300_vgg16`.

    Args:
      layers: the feature layers; the first ends `backbone.features`, every
        other one a member of `backbone.extra`.
    """
    names = {
        ours: f"backbone.features.{index}"
        if index < _VGG_POOL4
        else f"backbone.extra.0.{index - _VGG_POOL4}"
        for ours, index in _vgg_indices().items()
    }
    names["conv6"] = "backbone.extra.0.7.1"
    names["conv7"] = "backbone.extra.0.7.3"
    for index, layer in enumerate(layers[2:], 1):
        names[f"{layer}/conv1x1"] = f"backbone.extra.{index}.0"
        names[f"{layer}/conv3x3"] = f"backbone.extra.{index}.2"
    for index, layer in enumerate(layers):
        for ours, theirs in (
            ("conv_loc", "regression_head"),
            ("conv_cls", "classification_head"),
        ):
            names[f"{layer}_box/{ours}"] = f"head.{theirs}.module_list.{index}"
    gamma = {f"{layers[0]}_box/L2Normalization/gamma": "backbone.scale_weight"}
    return _all_convolutions(names) | gamma


def resnet(units: Sequence[int]) -> dict[str, str]:
    """torchvision's ResNet with bottlenecks.

    Args:
      units: of each of the four blocks.
    """

    def layer(ours: str, theirs: str, their_norm: str) -> dict[str, str]:
        return _normalized(ours, theirs, f"{ours}/BatchNorm", their_norm)

    names = layer("conv1", "conv1", "bn1")
    for block, count in enumerate(units, 1):
        for unit in range(count):
            ours = f"block{block}/unit_{unit + 1}/bottleneck_v1"
            theirs = f"layer{block}.{unit}"
            for k in (1, 2, 3):
                names |= layer(
                    f"{ours}/conv{k}", f"{theirs}.conv{k}", f"{theirs}.bn{k}"
                )
        ours = f"block{block}/unit_1/bottleneck_v1/shortcut"
        theirs = f"layer{block}.0.downsample"
        names |= layer(ours, f"{theirs}.0", f"{theirs}.1")
    return names


def mobilenet_v2() -> dict[str, str]:
    """torchvision's MobileNetV2; ours is keras.applications'."""
    names = _normalized("Conv1", "features.0.0", "bn_Conv1", "features.0.1")
    # The first block does not expand.
    parts = {"depthwise": ("0.0", "0.1"), "project": ("1", "2")}
    names |= _inverted_residual("expanded_conv", 1, parts)
    parts = {
        "expand": ("0.0", "0.1"),
        "depthwise": ("1.0", "1.1"),
        "project": ("2", "3"),
    }
    for block in range(1, 17):
        names |= _inverted_residual(f"block_{block}", block + 1, parts)
    return names | _normalized(
        "Conv_1", "features.18.0", "Conv_1_bn", "features.18.1"
    )


def _inverted_residual(
    ours: str, feature: int, parts: dict[str, tuple[str, str]]
) -> dict[str, str]:
    names = {}
    theirs = f"features.{feature}.conv"
    for part, (convolution, norm) in parts.items():
        layer = f"{ours}_{part}"
        names |= _normalized(
            layer, f"{theirs}.{convolution}", f"{layer}_BN", f"{theirs}.{norm}"
        )
    return names
