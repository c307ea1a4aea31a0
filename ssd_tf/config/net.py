"""The architecture of a net.

Every constant of SSD stands once, in this package, with its source.

References, by the names that comments use:
  paper: Liu et al., SSD: Single Shot MultiBox Detector, 2016,
    https://arxiv.org/abs/1512.02325v5
  ssd_pascal.py, ssd_coco.py, bbox_util.cpp, im_transforms.cpp, sampler.cpp:
    the authors' Caffe, https://github.com/weiliu89/caffe/tree/ssd
  port: SSD-TensorFlow, https://github.com/balancap/SSD-Tensorflow
  TFOD: TensorFlow Object Detection API,
    https://github.com/tensorflow/models/tree/master/research/object_detection
  ParseNet: Liu et al., 2015, https://arxiv.org/abs/1506.04579
  Feature Pyramid Networks: Lin et al., 2017, https://arxiv.org/abs/1612.03144
  MobileNetV2 and SSDLite: Sandler et al., 2018,
    https://arxiv.org/abs/1801.04381
"""

import dataclasses

from ssd_tf.command.settings import setting


@dataclasses.dataclass(frozen=True)
class ExtraBlock:
    """One extra feature layer: a 1x1 reduction and a convolution."""

    reduction: int  # channels after the 1x1 convolution
    channels: int
    stride: int = 2
    # Cells of padding on all four sides before a VALID convolution, as Caffe
    # pads; TensorFlow's SAME pads an even input on two sides at stride 2.
    padding: int = 1
    kernel: int = 3


@dataclasses.dataclass(frozen=True)
class SSDParams:
    """Describes a network: input, trunk, feature layers, anchors.

    The fields up to `prior_scaling`, except `anchor_clip`, have the port's
    names and meanings.
    """

    img_shape: tuple[int, int]  # height, width of the input, pixels
    num_classes: int  # with the background, class 0
    feat_layers: tuple[str, ...]  # end points that carry a head
    # Smallest and largest anchor as a share of the input (min_ratio and
    # max_ratio of ssd_pascal.py). `anchor_sizes` were made from them once;
    # nothing reads them.
    anchor_size_bounds: tuple[float, float]
    # Per layer the side of the small square anchor and that of the next
    # layer's, pixels. The side of the second square is their geometric mean
    # (paper, 2.2); there is none if the second number is 0.
    anchor_sizes: tuple[tuple[float, float], ...]
    anchor_ratios: tuple[tuple[float, ...], ...]  # width / height
    # Above 0: L2-normalise the layer and scale it, at first by this number
    # (ParseNet; ssd_pascal.py has 20 for conv4_3).
    normalizations: tuple[float, ...]
    # Height and width of every layer, cells, and the distance of neighbouring
    # cells in y and x, pixels. Set by the built net, see `SSDNet`.
    feat_shapes: tuple[tuple[int, int], ...] = ()
    anchor_steps: tuple[tuple[float, float], ...] = ()
    anchor_offset: float = 0.5  # position of the centre in its cell, cells
    anchor_clip: str = setting(
        "none",
        "Part of the anchors that is clipped to the image: nothing (Caffe, "
        "the port), sizes (torchvision) or centres and sizes (ssd.pytorch).",
        "net",
        choices=("none", "sizes", "all"),
    )
    # Variances of ssd_pascal.py, for cx, cy, w, h.
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
    # Above 0: a feature pyramid (Lin et al., 2017) of this many channels.
    fpn_channels: int = 0
    extra_blocks: tuple[ExtraBlock, ...] = ()
    batch_norm: bool = False  # in the extra layers and the pyramid
    separable: bool = False  # SSDLite: depthwise extra layers and heads
    # After conv6 and conv7: 0.5 in the port, 0 in Caffe.
    dropout_rate: float = 0.0
    # RGB; the input is (pixel - mean) * scale. Part of the trained weights.
    image_mean: tuple[float, float, float] = (123.0, 117.0, 104.0)
    image_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def no_annotation_label(self) -> int:
        """Least label that is not trained on (the port's name)."""
        return self.num_classes

    @property
    def trunk_layers(self) -> tuple[str, ...]:
        """The feature layers that are end points of the trunk."""
        return self.feat_layers[: -len(self.extra_blocks) or None]

    @property
    def extra_layers(self) -> tuple[str, ...]:
        """The feature layers that `extra_blocks` describe."""
        return self.feat_layers[len(self.trunk_layers) :]

    @property
    def anchors_per_cell(self) -> tuple[int, ...]:
        """Number of anchors in a cell, per layer."""
        return tuple(
            (2 if following else 1) + len(ratios)
            for (_, following), ratios in zip(
                self.anchor_sizes, self.anchor_ratios, strict=True
            )
        )
