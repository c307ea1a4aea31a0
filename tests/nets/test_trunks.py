"""Trunks and the pyramid: end points, whitening, where they pad and stride."""

import dataclasses

import keras
import numpy as np
import pytest

from ssd_tf.command import UserError
from ssd_tf.config import presets
from ssd_tf.config.presets import SSD_300_MOBILENET_V2, SSD_300_RESNET50
from ssd_tf.nets import applications, heads, resnet
from ssd_tf.nets.layers import arg_scope, conv2d
from ssd_tf.nets.ssd import SSDNet


def images(side=224):
    return keras.Input((side, side, 3))


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("MobileNetV2", (144, 192, 576, 1280)),
        ("MobileNet", (128, 256, 512, 1024)),
        ("MobileNetV3Large", (72, 240, 672, 960)),
        ("EfficientNetV2B0", (128, 192, 672, 1280)),
        ("DenseNet121", (256, 512, 1024, 1024)),
        ("ResNet50V2", (256, 512, 1024, 2048)),
        ("InceptionV3", (192, 288, 768, 2048)),
    ],
)
def test_end_points_are_the_widest_of_every_stride(name, channels):
    net, end_points = applications.application(images(), name)
    assert list(end_points) == ["stride4", "stride8", "stride16", "stride32"]
    assert tuple(x.shape[-1] for x in end_points.values()) == channels
    assert end_points["stride32"] is net
    if name != "InceptionV3":  # which pads nothing
        sides = [x.shape[1] for x in end_points.values()]
        assert sides == [56, 28, 14, 7]


def test_mobilenet_ends_where_the_paper_of_ssdlite_takes_it():
    # Section 6.2: the expansion of layer 15, and the last layer.
    _, end_points = applications.application(images(), "MobileNetV2")
    names = {
        name: tensor._keras_history.operation.name
        for name, tensor in end_points.items()
    }
    assert names["stride8"] == "block_6_expand_relu"
    assert names["stride16"] == "block_13_expand_relu"
    assert names["stride32"] == "out_relu"


@pytest.mark.parametrize("name", ["Xception", "EfficientNetB0"])
def test_names_do_not_depend_on_what_was_built_before(name):
    params = dataclasses.replace(SSD_300_MOBILENET_V2, trunk=name)
    first, second = (SSDNet(params).variables_by_name() for _ in range(2))
    assert list(first) == list(second)
    assert len(first) == len(SSDNet(params).model.weights)


@pytest.mark.parametrize("name", ["MobileNetV9", "resnet"])
def test_an_unknown_model_is_refused(name):
    with pytest.raises(ValueError, match=f"no model '{name}'"):
        applications.application(images(), name)


@pytest.mark.parametrize(
    ("name", "mean", "std", "bgr"),
    [
        ("MobileNetV2", (127.5,) * 3, (127.5,) * 3, False),
        ("ResNet50", (123.68, 116.779, 103.939), (1,) * 3, True),
        (
            "DenseNet121",
            (0.485 * 255, 0.456 * 255, 0.406 * 255),
            (0.229 * 255, 0.224 * 255, 0.225 * 255),
            False,
        ),
        ("EfficientNetV2B0", (0,) * 3, (1,) * 3, False),
    ],
)
def test_whitening_is_that_of_the_published_weights(name, mean, std, bgr):
    found_mean, scale, found_bgr = applications.whitening(name)
    np.testing.assert_allclose(found_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(scale, 1 / np.array(std), rtol=1e-12)
    assert found_bgr is bgr


def test_batch_norm_of_a_variant():
    for variant, epsilon in (("keras", 1e-3), ("torchvision", 1e-5)):
        params = dataclasses.replace(
            SSD_300_MOBILENET_V2, trunk_variant=variant
        )
        layer = SSDNet(params).model.get_layer("block_3_expand_BN")
        assert layer.epsilon == epsilon and layer.momentum == 0.97


@pytest.mark.parametrize("side", [224, 225])
def test_torchvision_pads_all_sides(side):
    ours, theirs = (
        keras.Model(inputs, applications.application(inputs, *words)[0])
        for words in (("MobileNetV2",), ("MobileNetV2", "torchvision"))
        for inputs in [images(side)]
    )
    assert ours.output.shape == theirs.output.shape
    theirs.set_weights(ours.get_weights())
    for layer in theirs.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.epsilon = 1e-3
    image = np.random.RandomState(0).uniform(-1, 1, (1, side, side, 3))
    expected = np.asarray(ours(image))
    difference = np.abs(expected - theirs(image)).max() / expected.max()
    # Where every map has an odd side, Keras pads as torchvision does.
    assert difference < 1e-5 if side == 225 else difference > 1e-2


def strides(model):
    """Layers that stride, with their strides."""
    return {
        layer.name: layer.strides[0]
        for layer in model.layers
        if getattr(layer, "strides", (1, 1))[0] > 1
    }


@pytest.mark.parametrize(
    ("variant", "strided"),
    [
        ("keras", ("block2.unit_1", "conv1")),
        ("torchvision", ("block2.unit_1", "conv2")),
        ("slim", ("block1.unit_3", "conv2")),
    ],
)
def test_where_a_residual_block_strides(variant, strided):
    inputs = images()
    net, end_points = resnet.resnet_v1(inputs, "resnet_v1_50", variant)
    found = strides(keras.Model(inputs, net))
    unit, convolution = strided
    assert found[f"{unit}.bottleneck_v1.{convolution}"] == 2
    shortcut = "subsample" if variant == "slim" else "shortcut"
    assert found[f"{unit}.bottleneck_v1.{shortcut}"] == 2
    # conv1, pool1, and in three blocks a convolution and its shortcut.
    assert len(found) == 2 + 3 * 2
    shapes = {name: x.shape[1:] for name, x in end_points.items()}
    # slim's first block ends at stride 8; its units at 4 have 256 channels.
    assert shapes == {
        "stride4": (56, 56, 256),
        "stride8": (28, 28, 512),
        "stride16": (14, 14, 1024),
        "stride32": (7, 7, 2048),
    }


def test_depth_is_a_row():
    for name, convolutions in (("resnet_v1_101", 100), ("resnet_v1_152", 151)):
        inputs = images()
        net, _ = resnet.resnet_v1(inputs, name)
        layers = keras.Model(inputs, net).layers
        found = [x for x in layers if isinstance(x, keras.layers.Conv2D)]
        # One a block is a shortcut, and the name counts the classifier.
        assert len(found) == convolutions + 4


def test_an_unknown_variant_is_refused():
    params = dataclasses.replace(SSD_300_RESNET50, trunk_variant="caffe")
    with pytest.raises(ValueError, match="^trunk_variant .*'caffe'"):
        SSDNet(params)


def test_a_source_that_the_trunk_lacks_is_named():
    layers = ("stride2", *SSD_300_RESNET50.feat_layers[1:])
    params = dataclasses.replace(SSD_300_RESNET50, feat_layers=layers)
    with pytest.raises(ValueError, match="no end point 'stride2', only str"):
        SSDNet(params)


def test_a_pyramid_adds_what_coarser_levels_see():
    sources = [keras.Input((side, side, 2)) for side in (5, 3, 2)]
    with arg_scope([conv2d], activation_fn="relu", normalizer_fn=None):
        levels = heads.feature_pyramid(sources, 2, separable=False)
    model = keras.Model(sources, levels)
    identity = np.eye(2, dtype="f")
    for layer in model.layers:
        if layer.weights:
            kernel = np.zeros(layer.kernel.shape, "f")
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = identity
            layer.set_weights([kernel, np.zeros(2, "f")])
    fine, middle = np.ones((1, 5, 5, 2), "f"), np.zeros((1, 3, 3, 2), "f")
    coarse = np.zeros((1, 2, 2, 2), "f")
    middle[0, :, 2] = 10
    coarse[0, 1] = 100
    p3, p4, p5 = model([fine, middle, coarse])
    np.testing.assert_array_equal(p5, coarse)
    # Nearest: two rows over three take 0, 0 (or 1) and 1; by the cell's
    # centre (i + .5) * 2 / 3 they are 0, 1, 1.
    np.testing.assert_array_equal(
        p4[0, :, :, 0], [[0, 0, 10], [100, 100, 110], [100, 100, 110]]
    )
    # (i + .5) * 3 / 5: rows and columns 0, 0, 1, 2, 2.
    take = [0, 0, 1, 2, 2]
    np.testing.assert_array_equal(
        p3[0, :, :, 0], 1 + np.asarray(p4)[0, :, :, 0][take][:, take]
    )


def test_another_trunk_by_name():
    params = applications.with_trunk(
        presets.SSD_300_MOBILENET_V2_035, "MobileNet"
    )
    assert (params.trunk, params.width_multiplier) == ("MobileNet", 1.0)
    assert params.image_mean == pytest.approx((127.5,) * 3)
    caffe = applications.with_trunk(presets.SSD_300_MOBILENET_V2, "ResNet50")
    assert caffe.image_mean == pytest.approx((123.68, 116.779, 103.939))
    with pytest.raises(UserError, match="heads of ssd_300_vgg are made for"):
        applications.with_trunk(presets.SSD_300_VGG, "ResNet50")
    with pytest.raises(UserError, match="--trunk=ResNet5: .* no model"):
        applications.with_trunk(presets.SSD_300_MOBILENET_V2, "ResNet5")
