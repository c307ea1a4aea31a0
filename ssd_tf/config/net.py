"""The settings of a net: its architecture, and the choice of a preset.

Every constant of SSD stands once, in this package, with its source. Nothing
here imports TensorFlow, so a client or a data tool can read a model's
settings.

Sources: "paper" is Liu et al., SSD: Single Shot MultiBox Detector, 2016
(https://arxiv.org/abs/1512.02325v5); "ssd_pascal.py" and "ssd_coco.py" are in
examples/ssd of the Caffe branch of its authors; "port" is SSD-TensorFlow
(balancap).
"""

import dataclasses

from ssd_tf.command.settings import setting


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
    """Describes a network: input, trunk, feature layers, anchors.

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
    anchor_clip: str = setting(
        "none",
        "Part of the anchors that is clipped to the image: nothing (Caffe, "
        "the port), sizes (torchvision) or centres and sizes (ssd.pytorch).",
        "net",
        choices=("none", "sizes", "all"),
    )
    # The variances of ssd_pascal.py, for cx, cy, w, h.
    prior_scaling: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)

    model_name: str = ""
    # vgg_16, resnet_v1_50 (101, 152) or a model of keras.applications.
    trunk: str = "vgg_16"
    trunk_variant: str = setting(
        "keras",
        "Convention of the trunk's padding, strides and batch norm epsilon; "
        "it travels with the weights.",
        "net",
        choices=("keras", "slim", "torchvision"),
    )
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
