"""The settings of a net and of its training, and their file.

Every constant of SSD stands once, here, in `ssd_tf.config.presets` or
`ssd_tf.config.training`, with its source. Nothing here imports TensorFlow,
so a client or a data tool can read a model's settings.

Sources: "paper" is Liu et al., SSD: Single Shot MultiBox Detector, 2016
(arXiv 1512.02325v5); "ssd_pascal.py" and "ssd_coco.py" are in examples/ssd of
the Caffe branch of its authors; "port" is SSD-TensorFlow (balancap).
"""

import dataclasses
import json
import os
import pathlib
from typing import Any

from ssd_tf.command import UserError, files
from ssd_tf.config.training import AugmentParams, LossParams, TrainParams

CONFIG_FILE = "config.json"
FORMAT_VERSION = 3


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

    The fields up to `prior_scaling` have the port's names and meanings, but
    for `anchor_clip`.
    """

    img_shape: tuple[int, int]  # height, width of the input, pixels
    num_classes: int  # with the background, class 0
    feat_layers: tuple[str, ...]  # end points that carry a head
    # Smallest and largest anchor as a share of the input, from which the
    # sizes were made (min_ratio and max_ratio of ssd_pascal.py); a record.
    anchor_size_bounds: tuple[float, float]
    # Per layer the side of the small square anchor and of the next layer's,
    # pixels: the second square has their geometric mean (paper, 2.2). Without
    # a second square where the next side is 0.
    anchor_sizes: tuple[tuple[float, float], ...]
    anchor_ratios: tuple[tuple[float, ...], ...]  # width / height
    # > 0: L2-normalise the layer, starting at this scale (ParseNet; 20 for
    # conv4_3 in ssd_pascal.py).
    normalizations: tuple[float, ...]
    # Height and width of every layer, cells, and the distance of neighbour
    # cells in y and x, pixels. The built net says what they are, see `SSDNet`.
    feat_shapes: tuple[tuple[int, int], ...] = ()
    anchor_steps: tuple[tuple[float, float], ...] = ()
    anchor_offset: float = 0.5  # of a cell's centre, cells
    # What is cut off at the borders of the image: nothing (Caffe, the port),
    # sizes (torchvision) or centres and sizes (ssd.pytorch).
    anchor_clip: str = "none"
    # The variances of ssd_pascal.py, for cx, cy, w, h.
    prior_scaling: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)

    model_name: str = ""
    # vgg_16, resnet_v1_50 (101, 152) or a model of keras.applications.
    trunk: str = "vgg_16"
    # Whose definition of the trunk: where it pads and strides, and its batch
    # norm's epsilon. It travels with the weights.
    trunk_variant: str = "keras"
    width_multiplier: float = 1.0  # of a MobileNet trunk
    # > 0: a feature pyramid (Lin et al., 2017) of so many channels.
    fpn_channels: int = 0
    extra_blocks: tuple[ExtraBlock, ...] = ()
    batch_norm: bool = False  # in the extra layers and the pyramid
    separable: bool = False  # SSDLite: depthwise extra layers and heads
    # The port drops out half after conv6 and conv7, Caffe nothing.
    dropout_rate: float = 0.0
    # RGB; the input is (pixel - mean) * scale. They travel with the weights.
    image_mean: tuple[float, float, float] = (123.0, 117.0, 104.0)
    image_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def no_annotation_label(self) -> int:
        """Labels from here on are not trained on (the port's name)."""
        return self.num_classes

    @property
    def trunk_layers(self) -> tuple[str, ...]:
        """The feature layers that are end points of the trunk."""
        return self.feat_layers[: -len(self.extra_blocks) or None]

    @property
    def extra_layers(self) -> tuple[str, ...]:
        """The feature layers that `extra_blocks` make."""
        return self.feat_layers[len(self.trunk_layers) :]

    @property
    def anchors_per_cell(self) -> tuple[int, ...]:
        """Number of anchors in a cell of each layer."""
        return tuple(
            (2 if following else 1) + len(ratios)
            for (_, following), ratios in zip(
                self.anchor_sizes, self.anchor_ratios, strict=True
            )
        )


@dataclasses.dataclass(frozen=True)
class DetectionParams:
    """Arguments of `detection.detect`; defaults of ssd_pascal.py."""

    select_threshold: float = 0.01
    nms_threshold: float = 0.45
    top_k: int = 400  # candidates per class before suppression
    keep_top_k: int = 200  # detections per image, over all classes


@dataclasses.dataclass(frozen=True)
class EvalParams:
    """How an evaluation judges, and what it keeps."""

    matching_threshold: float = 0.5  # IoU beyond which VOC sees a match
    # That COCO's AP is the mean over; by default its own.
    iou_thresholds: tuple[float, ...] | None = None
    bootstrap: int = 1000  # samples, 0 for none
    seed: int = 0  # of the bootstrap
    num_workers: int = 1  # processes for COCO's metrics
    report: bool = True
    report_images: int = 12  # worst ones, and half as many best ones
    save_detections: bool = False


@dataclasses.dataclass(frozen=True)
class StartParams:
    """The weights that a new run starts from; the port's names."""

    # A train_dir, a checkpoint in one, or a TF1 checkpoint.
    checkpoint_path: str | None = None
    # First part of the names in a TF1 checkpoint; the model's by default.
    checkpoint_model_scope: str | None = None
    checkpoint_exclude_scopes: tuple[str, ...] = ()
    ignore_missing_vars: bool = False
    # A file that `ssd_tf.weights.formats` reads, or "imagenet".
    backbone_weights: str | None = None


@dataclasses.dataclass(frozen=True)
class Config:
    """What a train_dir's config.json holds."""

    params: SSDParams
    class_names: tuple[str, ...]  # without the background
    training: TrainParams = TrainParams()
    num_samples: int = 0  # images in a pass; 0 before any training
    validation_split: str | None = None  # that the best checkpoint is best on
    # Variables that hold initial values, because nothing was imported into
    # them: such a net is a start for training and detects nothing.
    untrained: tuple[str, ...] = ()
    format_version: int = FORMAT_VERSION


def _from_dict(cls: type, values: dict[str, Any]):
    """The inverse of `dataclasses.asdict`, after a trip through JSON."""
    nested = {
        "params": SSDParams,
        "training": TrainParams,
        "augmentation": AugmentParams,
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
