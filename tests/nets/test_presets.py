"""Every preset: its anchors and parameters, two steps, detections, export."""

import dataclasses
import re

import numpy as np
import pytest
import tensorflow as tf
from processes import ROOT
from served import export_saved_model

from ssd_tf.command import UserError
from ssd_tf.config import run as config
from ssd_tf.config import training
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.config.presets import (
    PRESETS,
    SSD_128_MOBILENET_V2,
    SSD_300_MOBILENET_V2,
    SSD_300_VGG,
    resized,
)
from ssd_tf.datasets import records
from ssd_tf.export import signatures
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.training import train
from ssd_tf.weights import base, transfer

# Anchors and parameters with 21 classes. The port's nets, TFOD's SSD
# MobileNetV2 and fpnlite, and torchvision's ssdlite320 have these anchors.
COUNTS = {
    "ssd_300_vgg": (8732, 26_285_486),
    "ssd_300_vgg_voc": (8732, 26_285_486),
    "ssd_512_vgg": (24564, 27_188_676),
    "ssd_512_vgg_voc": (24564, 27_188_676),
    "ssd_300_resnet50": (8732, 31_720_110),
    "ssd_512_resnet50": (24564, 31_097_668),
    "ssd_300_resnet101": (8732, 50_764_462),
    "ssd_300_mobilenet_v1": (8096, 4_256_686),
    "ssd_300_mobilenet_v2": (8732, 3_399_598),
    "ssd_300_mobilenet_v2_035": (8732, 1_472_142),
    "ssd_300_mobilenet_v2_tfod": (1917, 3_406_585),
    "ssd_320_mobilenet_v2": (3234, 3_449_860),
    "ssd_320_mobilenet_v2_fpnlite": (12804, 2_761_646),
    "ssd_300_mobilenet_v3": (8732, 4_022_670),
    "ssd_128_mobilenet_v2": (1364, 750_228),
}
# The whole way takes half a minute for each; two stand for all in a hurry.
QUICK = ("ssd_128_mobilenet_v2", "ssd_300_mobilenet_v2_tfod")


def test_every_preset_is_in_the_table():
    assert set(COUNTS) == set(PRESETS)


@pytest.mark.parametrize("name", COUNTS)
def test_numbers_of_anchors_and_parameters(name):
    net = SSDNet(PRESETS[name])
    assert (len(net.flat_anchors), net.model.count_params()) == COUNTS[name]


def test_the_docs_have_the_same_table():
    text = (ROOT / "docs/nets.md").read_text("utf-8")
    rows = re.findall(
        r"^\| `(ssd_\w+)` \|.*?\| ([\d,]+) \| ([\d,]+) \|", text, re.MULTILINE
    )
    read = {
        name: tuple(int(number.replace(",", "")) for number in numbers)
        for name, *numbers in rows
    }
    assert read == COUNTS


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in PRESETS
    ],
)
def test_trains_detects_and_exports(name, shapes_data, pictures, tmp_path):
    class_names = ("circle", "square", "triangle")
    params = dataclasses.replace(PRESETS[name], num_classes=9)
    settings = config.Config(
        params,
        class_names,
        training.TrainParams(
            batch_size=2,
            max_number_of_steps=2,
            warmup_steps=0,
            # It would move every kernel without any gradient of the loss.
            weight_decay=0.0,
            augmentation=training.AUGMENTATIONS["none"],
        ),
    )
    before = {
        key: variable.numpy()
        for key, variable in SSDNet(params).variables_by_name().items()
    }
    net = train.fit(
        settings,
        tmp_path / "train",
        records.reader(shapes_data, "train"),
        48,
        start=transfer.Start("known values", base.Imported(before, params)),
    )
    for key, variable in net.variables_by_name().items():
        # The smallest heads may not get a gradient from two small batches.
        if key.endswith("/weights") and base.in_trunk(key, params):
            assert np.any(variable != before[key]), key
    found = signatures.make_predict(net)(pictures)
    boxes, numbers = found["detection_boxes"], found["num_detections"]
    assert boxes.shape == (len(pictures), 200, 4)
    assert (
        np.isfinite(boxes).all()
        and np.isfinite(found["detection_scores"]).all()
    )
    # Without a threshold even an untrained net finds something.
    images = np.zeros((1, *params.img_shape, 3), np.float32)
    anything = net.detect(images, DetectionParams(select_threshold=0.0))
    assert anything.num_detections[0] > 0
    path = export_saved_model(net, class_names, tmp_path / "export")
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    answer = served(image_bytes=tf.constant(pictures))
    np.testing.assert_array_equal(answer["num_detections"], numbers)
    np.testing.assert_allclose(answer["detection_boxes"], boxes, atol=1e-4)


@pytest.mark.parametrize(
    ("params", "img_shape", "first"),
    [
        (SSD_300_VGG, (300, 450), (38, 57)),
        (SSD_300_MOBILENET_V2, (256, 192), (32, 24)),
        (SSD_128_MOBILENET_V2, (64, 160), (8, 20)),
    ],
)
def test_other_sizes_keep_the_share_of_the_shorter_side(
    params, img_shape, first
):
    net = SSDNet(resized(params, img_shape))
    factor = min(img_shape) / min(params.img_shape)
    assert net.params.feat_shapes[0] == first
    assert net.params.anchor_steps[0] == (8, 8)
    for (side, _), (_, _, h, w) in zip(
        params.anchor_sizes, net.anchors(), strict=True
    ):
        # A square of the same share of the shorter side, and square pixels.
        pixels = (h[0] * img_shape[0], w[0] * img_shape[1])
        np.testing.assert_allclose(pixels, side * factor, rtol=1e-5)
    flat = sum(np.prod(x.shape[1:4]) for x in net.model.output["logits"])
    assert net.flat_anchors.shape == (flat, 4)
    # Cells lie over the whole image and hardly beyond it.
    centres = net.flat_anchors[:, :2]
    assert centres.min() > 0 and centres.max() < 1.1


@pytest.mark.parametrize(
    ("name", "img_shape"),
    [
        # 65 pixels are 3 cells at stride 32, which is nearer to 22.
        ("ssd_300_mobilenet_v2", (65, 65)),
        ("ssd_300_mobilenet_v2", (17, 900)),
        ("ssd_320_mobilenet_v2_fpnlite", (66, 33)),
        ("ssd_300_vgg", (32, 300)),
        ("ssd_300_resnet50", (33, 300)),
    ],
)
def test_strides_are_those_of_the_layers(name, img_shape):
    net = SSDNet(resized(PRESETS[name], img_shape))
    sides = net.params.feat_shapes
    strides = (8, 16, 32)[: 2 if name == "ssd_300_vgg" else 3]
    for (h, w), stride in zip(sides, strides, strict=False):
        assert (h, w) == tuple(-(-side // stride) for side in img_shape)


def test_a_small_map_is_padded_where_it_lacks_cells_only():
    # Maps of 2x29 and 1x27 cells before the 3x3 kernels of block10, block11.
    net = SSDNet(resized(SSD_300_VGG, (96, 1800)))
    assert net.params.feat_shapes[3:] == ((2, 29), (2, 27), (2, 25))


def test_same_size_is_the_same_net():
    assert resized(SSD_300_VGG, (300, 300)) == SSD_300_VGG


def test_a_size_of_no_pixels_is_refused():
    with pytest.raises(UserError, match="^image size 0x300: too small"):
        resized(SSD_300_VGG, (0, 300))
