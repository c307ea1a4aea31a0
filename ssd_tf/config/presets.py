"""The nets by name: each preset is data, from which the same code builds a net.

Sources are those of `ssd_tf.config.net`.
"""

import dataclasses
import functools
import re

from ssd_tf.command.errors import UserError
from ssd_tf.command.settings import setting
from ssd_tf.config.net import ExtraBlock, SSDParams

_TWO = (2.0, 0.5)
_THREE = (2.0, 0.5, 3.0, 1.0 / 3.0)


def _chain(*sides: float) -> tuple[tuple[float, float], ...]:
    """Pairs every side with the next: `anchor_sizes` of successive layers."""
    return tuple(zip(sides, sides[1:], strict=False))


# The port's and ssd_coco.py's anchors, from 21 pixels (7 %) on: 8732.
SSD_300_VGG = SSDParams(
    model_name="ssd_300_vgg",
    img_shape=(300, 300),
    num_classes=21,
    feat_layers=("block4", "block7", "block8", "block9", "block10", "block11"),
    anchor_size_bounds=(0.15, 0.90),
    anchor_sizes=_chain(21.0, 45.0, 99.0, 153.0, 207.0, 261.0, 315.0),
    anchor_ratios=(_TWO, _THREE, _THREE, _THREE, _TWO, _TWO),
    normalizations=(20, -1, -1, -1, -1, -1),
    extra_blocks=(
        ExtraBlock(256, 512),
        ExtraBlock(128, 256),
        ExtraBlock(128, 256, stride=1, padding=0),
        ExtraBlock(128, 256, stride=1, padding=0),
    ),
)
# The anchors of ssd_pascal.py, from 30 pixels (10 %) on, for weights that were
# trained on VOC alone.
SSD_300_VGG_VOC = dataclasses.replace(
    SSD_300_VGG,
    model_name="ssd_300_vgg_voc",
    anchor_size_bounds=(0.20, 0.90),
    anchor_sizes=_chain(30.0, 60.0, 111.0, 162.0, 213.0, 264.0, 315.0),
)
# The port's and ssd_coco.py's SSD512: 24564 anchors.
SSD_512_VGG = dataclasses.replace(
    SSD_300_VGG,
    model_name="ssd_512_vgg",
    img_shape=(512, 512),
    feat_layers=SSD_300_VGG.feat_layers + ("block12",),
    anchor_size_bounds=(0.10, 0.90),
    anchor_sizes=_chain(
        20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72
    ),
    anchor_ratios=(_TWO, _THREE, _THREE, _THREE, _THREE, _TWO, _TWO),
    normalizations=(20, -1, -1, -1, -1, -1, -1),
    extra_blocks=(
        ExtraBlock(256, 512),
        ExtraBlock(128, 256),
        ExtraBlock(128, 256),
        ExtraBlock(128, 256),
        ExtraBlock(128, 256, stride=1, kernel=4),
    ),
)
# The anchors of ssd_pascal.py at 512 pixels: 7 %, then 15 % to 90 %.
SSD_512_VGG_VOC = dataclasses.replace(
    SSD_512_VGG,
    model_name="ssd_512_vgg_voc",
    anchor_size_bounds=(0.15, 0.90),
    anchor_sizes=_chain(35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.6),
)
# Feature maps at strides 8, 16 and 32, then extra layers, with the anchors of
# SSD300. The mean is that of keras.applications' ResNet50.
SSD_300_RESNET50 = dataclasses.replace(
    SSD_300_VGG,
    model_name="ssd_300_resnet50",
    trunk="resnet_v1_50",
    feat_layers=("stride8", "stride16", "stride32", "extra1", "extra2")
    + ("extra3",),
    normalizations=(-1,) * 6,
    extra_blocks=(
        ExtraBlock(256, 512),
        ExtraBlock(128, 256),
        ExtraBlock(128, 256, stride=1, padding=0),
    ),
    batch_norm=True,
    image_mean=(123.68, 116.779, 103.939),
)
SSD_512_RESNET50 = dataclasses.replace(
    SSD_512_VGG,
    model_name="ssd_512_resnet50",
    trunk=SSD_300_RESNET50.trunk,
    feat_layers=SSD_300_RESNET50.feat_layers + ("extra4",),
    normalizations=(-1,) * 7,
    extra_blocks=SSD_512_VGG.extra_blocks[1:],
    batch_norm=True,
    image_mean=SSD_300_RESNET50.image_mean,
)
SSD_300_RESNET101 = dataclasses.replace(
    SSD_300_RESNET50, model_name="ssd_300_resnet101", trunk="resnet_v1_101"
)
# SSDLite (MobileNetV2 paper, section 6.2) with SSD300's anchors. Unlike theirs
# it begins at stride 8, for objects of 20 pixels.
SSD_300_MOBILENET_V2 = dataclasses.replace(
    SSD_300_RESNET50,
    model_name="ssd_300_mobilenet_v2",
    trunk="MobileNetV2",
    separable=True,
    image_mean=(127.5, 127.5, 127.5),
    image_scale=(1 / 127.5, 1 / 127.5, 1 / 127.5),
)
SSD_300_MOBILENET_V1 = dataclasses.replace(
    SSD_300_MOBILENET_V2,
    model_name="ssd_300_mobilenet_v1",
    trunk="MobileNet",
)
# keras.applications' MobileNetV3 whitens images in a layer of its own.
SSD_300_MOBILENET_V3 = dataclasses.replace(
    SSD_300_MOBILENET_V2,
    model_name="ssd_300_mobilenet_v3",
    trunk="MobileNetV3Large",
    image_mean=(0.0, 0.0, 0.0),
    image_scale=(1.0, 1.0, 1.0),
)
# About a third of the channels, for training on CPUs.
SSD_300_MOBILENET_V2_035 = dataclasses.replace(
    SSD_300_MOBILENET_V2,
    model_name="ssd_300_mobilenet_v2_035",
    width_multiplier=0.35,
)
# TFOD's SSD MobileNetV2, whose input is 300 pixels although its name says 320:
# feature layers at strides 16 and 32 and four extra layers, anchors of 20 % to
# 95 % of the input, 1917 in all. In the first layer, with three anchors a cell,
# the square has 20 % here and 10 % there.
SSD_300_MOBILENET_V2_TFOD = dataclasses.replace(
    SSD_300_MOBILENET_V2,
    model_name="ssd_300_mobilenet_v2_tfod",
    feat_layers=("stride16", "stride32", "extra1", "extra2", "extra3")
    + ("extra4",),
    anchor_size_bounds=(0.20, 0.95),
    anchor_sizes=((60.0, 0.0),)
    + _chain(105.0, 150.0, 195.0, 240.0, 285.0, 300.0),
    anchor_ratios=(_TWO,) + (_THREE,) * 5,
    extra_blocks=(
        ExtraBlock(256, 512),
        ExtraBlock(128, 256),
        ExtraBlock(128, 256),
        ExtraBlock(64, 128),
    ),
)
# SSDLite of the MobileNetV2 paper, at 320 pixels. The anchors are those of
# torchvision's ssdlite320: six per cell, 20 % to 95 % of the input, 3234.
SSD_320_MOBILENET_V2 = dataclasses.replace(
    SSD_300_MOBILENET_V2_TFOD,
    model_name="ssd_320_mobilenet_v2",
    img_shape=(320, 320),
    anchor_sizes=_chain(64.0, 112.0, 160.0, 208.0, 256.0, 304.0, 320.0),
    anchor_ratios=(_THREE,) * 6,
)
# TFOD's SSD MobileNetV2 FPNLite: as many anchors (12804), of two sizes per
# octave, from 32 pixels at stride 8 on. Heads are one per layer; TFOD's are
# shared by all layers.
SSD_320_MOBILENET_V2_FPNLITE = dataclasses.replace(
    SSD_320_MOBILENET_V2,
    model_name="ssd_320_mobilenet_v2_fpnlite",
    feat_layers=("stride8", "stride16", "stride32", "extra1", "extra2"),
    anchor_size_bounds=(0.10, 1.60),
    anchor_sizes=_chain(32.0, 64.0, 128.0, 256.0, 512.0, 1024.0),
    anchor_ratios=(_THREE,) * 5,
    normalizations=(-1,) * 5,
    fpn_channels=128,
    extra_blocks=(ExtraBlock(128, 128), ExtraBlock(128, 128)),
)
# For CPUs and the built-in shapes: 1364 anchors, 0.5 million parameters.
SSD_128_MOBILENET_V2 = dataclasses.replace(
    SSD_300_MOBILENET_V2_035,
    model_name="ssd_128_mobilenet_v2",
    img_shape=(128, 128),
    feat_layers=SSD_320_MOBILENET_V2_FPNLITE.feat_layers,
    anchor_size_bounds=(0.15, 0.80),
    anchor_sizes=_chain(19.2, 32.0, 51.2, 76.8, 102.4, 128.0),
    anchor_ratios=(_TWO,) * 5,
    normalizations=(-1,) * 5,
    extra_blocks=(ExtraBlock(64, 128), ExtraBlock(64, 128)),
)
PRESETS = {
    params.model_name: params
    for params in (
        SSD_300_VGG,
        SSD_300_VGG_VOC,
        SSD_512_VGG,
        SSD_512_VGG_VOC,
        SSD_300_RESNET50,
        SSD_512_RESNET50,
        SSD_300_RESNET101,
        SSD_300_MOBILENET_V1,
        SSD_300_MOBILENET_V2,
        SSD_300_MOBILENET_V2_035,
        SSD_300_MOBILENET_V2_TFOD,
        SSD_320_MOBILENET_V2,
        SSD_320_MOBILENET_V2_FPNLITE,
        SSD_300_MOBILENET_V3,
        SSD_128_MOBILENET_V2,
    )
}


def resized(params: SSDParams, img_shape: tuple[int, int]) -> SSDParams:
    """Returns a preset for another input size; anchors scale with it.

    Args:
      params: a preset.
      img_shape: height and width, pixels. Anchors scale with the shorter
        side, so that square ones remain square.

    Raises:
      UserError: a side is not positive.
    """
    if min(img_shape) < 1:
        raise UserError(f"image size {img_shape[0]}x{img_shape[1]}: too small")
    factor = min(img_shape) / min(params.img_shape)
    return dataclasses.replace(
        params,
        img_shape=tuple(img_shape),
        anchor_sizes=tuple(
            (factor * side, factor * following)
            for side, following in params.anchor_sizes
        ),
        feat_shapes=(),
        anchor_steps=(),
    )


_net = functools.partial(setting, section="net")


@dataclasses.dataclass(frozen=True)
class NetOptions:
    """The choice of a net to build."""

    model_name: str = _net(
        "ssd_300_vgg", "Name of the net.", choices=tuple(PRESETS)
    )
    image_size: str | None = _net(
        None,
        "Height and width of the input, such as 300x480, or one number for "
        "both [the net's]; anchors keep their share of it.",
        is_valid=re.compile(r"[1-9]\d*(x[1-9]\d*)?").fullmatch,
        expected=(
            "HEIGHTxWIDTH in pixels, such as 300x480, or one number for both"
        ),
    )
    trunk: str | None = _net(
        None,
        "Model of keras.applications, such as EfficientNetV2B0, in place of "
        "the net's trunk; not for VGG.",
    )

    @property
    def params(self) -> SSDParams:
        """The preset at the image size, before `trunk` is replaced."""
        preset = PRESETS[self.model_name]
        if self.image_size is None:
            return preset
        sides = [int(side) for side in self.image_size.split("x")]
        return resized(preset, (sides[0], sides[-1]))
