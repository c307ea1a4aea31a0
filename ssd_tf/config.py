"""Every constant of SSD once, with its source, and the presets.

A preset is a row of data: the same functions build all of them. Nothing here
imports TensorFlow, so a client or a data tool can read a model's settings.

Sources: "paper" is Liu et al., SSD: Single Shot MultiBox Detector, 2016
(arXiv 1512.02325v5); "ssd_pascal.py" and "ssd_coco.py" are in examples/ssd of
the Caffe branch of its authors; "port" is SSD-TensorFlow (balancap).
"""

import dataclasses
import json
import os
import pathlib
from typing import Any

from ssd_tf import files
from ssd_tf.command import UserError

CONFIG_FILE = "config.json"
FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class ExtraBlock:
    """One extra feature layer: a 1x1 reduction and a convolution."""

    reduction: int  # channels after the 1x1 convolution
    channels: int
    stride: int = 2
    # Explicit symmetric padding before a VALID convolution, as Caffe pads:
    # TensorFlow's SAME pads stride 2 asymmetrically.
    padding: int = 1
    kernel: int = 3


@dataclasses.dataclass(frozen=True)
class SSDParams:
    """What a network is: input, trunk, feature layers, anchors.

    The fields up to `prior_scaling` have the port's names and meanings.
    """

    img_shape: tuple[int, int]  # height, width of the input, pixels
    num_classes: int  # with the background, class 0
    feat_layers: tuple[str, ...]  # end points that carry a head
    feat_shapes: tuple[tuple[int, int], ...]  # height, width, cells
    # Smallest and largest anchor as a share of the input, from which the
    # sizes were made (min_ratio and max_ratio of ssd_pascal.py); a record.
    anchor_size_bounds: tuple[float, float]
    # Per layer the side of the small square anchor and of the next layer's,
    # pixels: the second square has their geometric mean (paper, 2.2).
    anchor_sizes: tuple[tuple[float, float], ...]
    anchor_ratios: tuple[tuple[float, ...], ...]  # width / height
    anchor_steps: tuple[float, ...]  # distance of neighbour cells, pixels
    # > 0: L2-normalise the layer, starting at this scale (ParseNet; 20 for
    # conv4_3 in ssd_pascal.py).
    normalizations: tuple[float, ...]
    anchor_offset: float = 0.5  # of a cell's centre, cells
    # The variances of ssd_pascal.py, for cx, cy, w, h.
    prior_scaling: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)

    model_name: str = ""
    trunk: str = "vgg"
    width_multiplier: float = 1.0  # of a MobileNet trunk
    extra_blocks: tuple[ExtraBlock, ...] = ()
    separable: bool = False  # SSDLite: depthwise extra layers and heads
    # The port drops out half after conv6 and conv7, Caffe nothing.
    dropout_rate: float = 0.0
    image_mean: tuple[float, float, float] = (123.0, 117.0, 104.0)  # RGB
    image_scale: float = 1.0  # multiplies the pixel minus its mean

    @property
    def no_annotation_label(self) -> int:
        """Labels from here on are not trained on (the port's name)."""
        return self.num_classes

    @property
    def anchors_per_cell(self) -> tuple[int, ...]:
        """Number of anchors in a cell of each layer."""
        return tuple(2 + len(ratios) for ratios in self.anchor_ratios)


_TWO = (2.0, 0.5)
_THREE = (2.0, 0.5, 3.0, 1.0 / 3.0)
_SSD_300_BLOCKS = (
    ExtraBlock(256, 512),
    ExtraBlock(128, 256),
    ExtraBlock(128, 256, stride=1, padding=0),
    ExtraBlock(128, 256, stride=1, padding=0),
)
# The port's and ssd_coco.py's anchors, 21 pixels and up: 8732 of them.
SSD_300_VGG = SSDParams(
    model_name="ssd_300_vgg",
    img_shape=(300, 300),
    num_classes=21,
    feat_layers=("block4", "block7", "block8", "block9", "block10", "block11"),
    feat_shapes=((38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)),
    anchor_size_bounds=(0.15, 0.90),
    anchor_sizes=(
        (21.0, 45.0),
        (45.0, 99.0),
        (99.0, 153.0),
        (153.0, 207.0),
        (207.0, 261.0),
        (261.0, 315.0),
    ),
    anchor_ratios=(_TWO, _THREE, _THREE, _THREE, _TWO, _TWO),
    anchor_steps=(8, 16, 32, 64, 100, 300),
    normalizations=(20, -1, -1, -1, -1, -1),
    extra_blocks=_SSD_300_BLOCKS,
)
# The anchors of ssd_pascal.py, for weights trained on VOC alone.
SSD_300_VGG_VOC = dataclasses.replace(
    SSD_300_VGG,
    model_name="ssd_300_vgg_voc",
    anchor_size_bounds=(0.20, 0.90),
    anchor_sizes=(
        (30.0, 60.0),
        (60.0, 111.0),
        (111.0, 162.0),
        (162.0, 213.0),
        (213.0, 264.0),
        (264.0, 315.0),
    ),
)
# The port's and ssd_coco.py's SSD512: 24564 anchors.
SSD_512_VGG = dataclasses.replace(
    SSD_300_VGG,
    model_name="ssd_512_vgg",
    img_shape=(512, 512),
    feat_layers=SSD_300_VGG.feat_layers + ("block12",),
    feat_shapes=(
        (64, 64),
        (32, 32),
        (16, 16),
        (8, 8),
        (4, 4),
        (2, 2),
        (1, 1),
    ),
    anchor_size_bounds=(0.10, 0.90),
    anchor_sizes=(
        (20.48, 51.2),
        (51.2, 133.12),
        (133.12, 215.04),
        (215.04, 296.96),
        (296.96, 378.88),
        (378.88, 460.8),
        (460.8, 542.72),
    ),
    anchor_ratios=(_TWO, _THREE, _THREE, _THREE, _THREE, _TWO, _TWO),
    anchor_steps=(8, 16, 32, 64, 128, 256, 512),
    normalizations=(20, -1, -1, -1, -1, -1, -1),
    extra_blocks=(
        ExtraBlock(256, 512),
        ExtraBlock(128, 256),
        ExtraBlock(128, 256),
        ExtraBlock(128, 256),
        ExtraBlock(128, 256, stride=1, kernel=4),
    ),
)
# SSDLite (Sandler et al., MobileNetV2, 2018, section 6.2) on SSD300's anchors.
# Unlike theirs it has a source at stride 8, for objects of 20 pixels.
SSD_300_MOBILENET_V2 = dataclasses.replace(
    SSD_300_VGG,
    model_name="ssd_300_mobilenet_v2",
    trunk="mobilenet_v2",
    feat_layers=("stride8", "stride16", "stride32", "extra1", "extra2")
    + ("extra3",),
    normalizations=(-1,) * 6,
    extra_blocks=(
        ExtraBlock(256, 512),
        ExtraBlock(128, 256),
        ExtraBlock(128, 256, stride=1, padding=0),
    ),
    separable=True,
    image_mean=(127.5, 127.5, 127.5),
    image_scale=1 / 127.5,
)
# A third of the channels, for training on CPUs.
SSD_300_MOBILENET_V2_035 = dataclasses.replace(
    SSD_300_MOBILENET_V2,
    model_name="ssd_300_mobilenet_v2_035",
    width_multiplier=0.35,
)
# For CPUs and the built-in data: 1364 anchors, 0.5 million parameters.
SSD_128_MOBILENET_V2 = dataclasses.replace(
    SSD_300_MOBILENET_V2,
    model_name="ssd_128_mobilenet_v2",
    width_multiplier=0.35,
    img_shape=(128, 128),
    feat_layers=("stride8", "stride16", "stride32", "extra1", "extra2"),
    feat_shapes=((16, 16), (8, 8), (4, 4), (2, 2), (1, 1)),
    anchor_size_bounds=(0.15, 0.80),
    anchor_sizes=(
        (19.2, 32.0),
        (32.0, 51.2),
        (51.2, 76.8),
        (76.8, 102.4),
        (102.4, 128.0),
    ),
    anchor_ratios=(_TWO,) * 5,
    anchor_steps=(8, 16, 32, 64, 128),
    normalizations=(-1,) * 5,
    extra_blocks=(ExtraBlock(64, 128), ExtraBlock(64, 128)),
)
PRESETS = {
    params.model_name: params
    for params in (
        SSD_300_VGG,
        SSD_300_VGG_VOC,
        SSD_512_VGG,
        SSD_300_MOBILENET_V2,
        SSD_300_MOBILENET_V2_035,
        SSD_128_MOBILENET_V2,
    )
}


# What the settings below may be, by field.
CHOICES = {
    "mining": ("image", "batch"),
    "normalizer": ("positives", "batch_size"),
    "optimizer": (
        "adadelta",
        "adagrad",
        "adam",
        "ftrl",
        "momentum",
        "rmsprop",
        "sgd",
    ),
    "learning_rate_decay_type": ("step", "cosine", "exponential", "fixed"),
    "augmentation": ("light", "none"),
    "precision": ("float32", "mixed_bfloat16"),
}


def check_choice(field: str, value: str) -> None:
    """Refuses a value that `CHOICES` does not have.

    Raises:
      ValueError: naming field, choices and value.
    """
    if value not in CHOICES[field]:
        raise ValueError(
            f"{field} must be one of {', '.join(CHOICES[field])}; "
            f"received {value!r}"
        )


@dataclasses.dataclass(frozen=True)
class LossParams:
    """Arguments of `losses.ssd_losses`."""

    match_threshold: float = 0.5  # IoU from which an anchor is positive
    negative_ratio: float = 3.0  # mined negatives per positive (paper, 2.2)
    alpha: float = 1.0  # weight of the localisation loss (paper, 2.2)
    label_smoothing: float = 0.0
    mining: str = "image"
    normalizer: str = "positives"
    min_negatives: int = 3


@dataclasses.dataclass(frozen=True)
class DetectionParams:
    """Arguments of `detection.detect`; defaults of ssd_pascal.py."""

    select_threshold: float = 0.01
    nms_threshold: float = 0.45
    top_k: int = 400  # candidates per class before suppression
    keep_top_k: int = 200  # detections per image, over all classes


@dataclasses.dataclass(frozen=True)
class TrainParams:
    """The training recipe; defaults of ssd_pascal.py where it has one."""

    batch_size: int = 32  # over all replicas
    max_number_of_steps: int = 120_000
    optimizer: str = "momentum"
    momentum: float = 0.9
    opt_epsilon: float = 1e-7  # the port's 1.0 makes steps 479 times smaller
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    rmsprop_decay: float = 0.9
    rmsprop_momentum: float = 0.9
    adadelta_rho: float = 0.95
    learning_rate: float = 1e-3
    learning_rate_decay_type: str = "step"
    learning_rate_decay_factor: float = 0.1
    # Where `step` multiplies by the factor, as shares of all steps: 80,000
    # and 100,000 of 120,000.
    decay_boundaries: tuple[float, ...] = (2 / 3, 5 / 6)
    num_epochs_per_decay: float = 2.0  # of `exponential`, the port's
    end_learning_rate: float = 0.0  # of `cosine`
    warmup_steps: int = 500
    weight_decay: float = 5e-4  # on kernels only
    augmentation: str = "light"
    ignore_difficult: bool = False  # Caffe trains VOC on them
    seed: int = 0
    precision: str = "float32"
    save_interval_steps: int = 1000
    log_every_n_steps: int = 10
    max_to_keep: int = 5
    loss: LossParams = LossParams()


@dataclasses.dataclass(frozen=True)
class Config:
    """What a train_dir's config.json holds."""

    params: SSDParams
    class_names: tuple[str, ...]  # without the background
    training: TrainParams = TrainParams()
    format_version: int = FORMAT_VERSION


def _from_dict(cls: type, values: dict[str, Any]):
    """The inverse of `dataclasses.asdict`, after a trip through JSON."""
    nested = {
        "params": SSDParams,
        "training": TrainParams,
        "loss": LossParams,
    }
    if not isinstance(values, dict):
        raise ValueError(f"{cls.__name__} is not an object")
    names = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise ValueError(f"unknown {cls.__name__} setting {unknown[0]!r}")
    values = {
        name: _from_dict(nested[name], value)
        if name in nested
        else _tuples(value)
        for name, value in values.items()
    }
    if "extra_blocks" in values:
        values["extra_blocks"] = tuple(
            _from_dict(ExtraBlock, block) for block in values["extra_blocks"]
        )
    return cls(**values)


def _tuples(value):
    """JSON's lists as tuples, at every depth."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return value


def save(config: Config, train_dir: str | os.PathLike) -> None:
    """Writes `config.json` into a train_dir."""
    path = pathlib.Path(train_dir) / CONFIG_FILE
    files.write_json(path, dataclasses.asdict(config))


def load(train_dir: str | os.PathLike) -> Config:
    """Reads what `save` wrote.

    Raises:
      UserError: there is none, or it is not one of ours.
    """
    path = pathlib.Path(train_dir) / CONFIG_FILE
    if not path.is_file():
        raise UserError(
            f"{path}: not found; name a train_dir that train_ssd.py has made"
        )
    try:
        config = _from_dict(Config, json.loads(path.read_text("utf-8")))
        if config.format_version != FORMAT_VERSION:
            raise ValueError(f"format_version {config.format_version}")
        return config
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path}: not a configuration of this version ({error}); "
            "train again or take the ssd_tf that wrote it"
        ) from error
