"""Anchors: Caffe's formulas and numbers by hand."""

import dataclasses
import math

import numpy as np
import pytest

from ssd_tf.config.presets import PRESETS, SSD_300_VGG, SSD_300_VGG_VOC
from ssd_tf.multibox import anchors as anchor_boxes
from ssd_tf.nets.ssd import SSDNet


@pytest.fixture(scope="module")
def vgg():
    return SSDNet(SSD_300_VGG)


def test_one_layer_by_hand():
    y, x, h, w = anchor_boxes.ssd_anchor_one_layer(
        img_shape=(100, 200),
        feat_shape=(2, 3),
        sizes=(20, 45),
        ratios=(4.0,),
        step=50,
    )
    np.testing.assert_allclose(y[..., 0], [[0.25] * 3, [0.75] * 3])
    np.testing.assert_allclose(x[..., 0], [[0.125, 0.375, 0.625]] * 2)
    # Squares of 20 and sqrt(20 * 45) = 30 pixels, and 10 x 40.
    np.testing.assert_allclose(h, [0.2, 0.3, 0.1], rtol=1e-6)
    np.testing.assert_allclose(w, [0.1, 0.15, 0.2], rtol=1e-6)


def test_offset_moves_the_centres():
    layer = anchor_boxes.ssd_anchor_one_layer(
        (100, 100), (1, 1), (20, 20), (), step=50, offset=0.25
    )
    assert layer[0].item() == layer[1].item() == 0.125


@pytest.mark.parametrize(
    ("layer", "sizes"),
    [(0, [0.1, math.sqrt(1800) / 300]), (5, [264 / 300, 0.961249])],
)
def test_voc_preset_has_the_anchors_of_ssd_pascal(layer, sizes):
    _, _, h, w = SSDNet(SSD_300_VGG_VOC).anchors()[layer]
    np.testing.assert_allclose(h[:2], sizes, rtol=1e-6)
    np.testing.assert_allclose(w[:2], sizes, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "first_percent", "layers"),
    [
        ("ssd_300_vgg", 7, 6),
        ("ssd_300_vgg_voc", 10, 6),
        ("ssd_512_vgg", 4, 7),
        ("ssd_300_mobilenet_v2", 7, 6),
    ],
)
def test_sizes_follow_from_the_bounds_as_in_caffe(name, first_percent, layers):
    # ssd_pascal.py: min_sizes and max_sizes from min_ratio, max_ratio, step.
    params = PRESETS[name]
    low, high = (round(100 * bound) for bound in params.anchor_size_bounds)
    step = (high - low) // (layers - 2)
    percents = [first_percent, *(low + step * k for k in range(layers))]
    sides = [params.img_shape[0] * percent / 100 for percent in percents]
    np.testing.assert_allclose(
        params.anchor_sizes, list(zip(sides, sides[1:], strict=False))
    )


def test_flat_order_is_layer_row_column_anchor(vgg):
    flat_anchors = vgg.flat_anchors
    layer, row, column, anchor = 1, 3, 17, 4
    y, x, h, w = vgg.anchors()[layer]
    index = 38 * 38 * 4 + (row * 19 + column) * 6 + anchor
    expected = [y[row, column, 0], x[row, column, 0], h[anchor], w[anchor]]
    np.testing.assert_array_equal(flat_anchors[index], expected)
    # Ratio 3 lies: its width is three times its height.
    assert w[anchor] / h[anchor] == pytest.approx(3)


def test_centres_and_sizes_are_not_clipped(vgg):
    flat_anchors = vgg.flat_anchors
    # Row 9 of block8, and the lying anchor of block11: 1.2304 wide.
    assert flat_anchors[:, 0].max() == pytest.approx(9.5 * 32 / 300)
    assert flat_anchors[:, 3].max() == pytest.approx(261 / 300 * 2**0.5)


def test_another_image_shape(vgg):
    layers, before = vgg.anchors((600, 300)), vgg.anchors()
    for (y, x, h, w), (y_0, x_0, h_0, w_0) in zip(layers, before, strict=True):
        np.testing.assert_allclose(y, y_0 / 2, rtol=1e-6)
        np.testing.assert_allclose(h, h_0 / 2, rtol=1e-6)
        np.testing.assert_array_equal(x, x_0)
        np.testing.assert_array_equal(w, w_0)


def test_layers_that_do_not_agree_in_number_are_refused(vgg):
    params = dataclasses.replace(vgg.params, anchor_steps=(8, 16))
    with pytest.raises(ValueError):
        anchor_boxes.ssd_anchors_all_layers(params)


def test_a_preset_as_it_stands_has_no_anchors():
    with pytest.raises(ValueError, match="^feat_shapes is empty"):
        anchor_boxes.ssd_anchors_all_layers(SSD_300_VGG)


@pytest.mark.parametrize(
    ("img_shape", "cells", "expected"),
    [
        # What ssd_pascal.py types for SSD300 and SSD512.
        ((300, 300), (38, 19, 10, 5, 3, 1), (8, 16, 32, 64, 100, 300)),
        (
            (512, 512),
            (64, 32, 16, 8, 4, 2, 1),
            (8, 16, 32, 64, 128, 256, 512),
        ),
    ],
)
def test_steps_are_those_of_caffe(img_shape, cells, expected):
    steps = anchor_boxes.steps(img_shape, [(n, n) for n in cells])
    assert steps == tuple((step, step) for step in expected)


def test_steps_of_rows_and_columns():
    # 38 rows of 8 are 304 of 300 pixels; 4 columns of 32 were 128 of 100.
    assert anchor_boxes.steps((300, 100), [(38, 4)]) == ((8, 25),)


def test_a_layer_without_a_second_square():
    layer = anchor_boxes.ssd_anchor_one_layer(
        (100, 100), (1, 1), (20, 0), (4.0,), step=100
    )
    np.testing.assert_allclose(layer[2], [0.2, 0.1], rtol=1e-6)
    np.testing.assert_allclose(layer[3], [0.2, 0.4], rtol=1e-6)


@pytest.mark.parametrize(
    ("clip", "centre", "width"),
    [("none", 1.5, 1.2), ("sizes", 1.5, 1), ("all", 1, 1)],
)
def test_clipping(clip, centre, width):
    y, x, h, w = anchor_boxes.ssd_anchor_one_layer(
        (100, 100), (2, 2), (60, 0), (4.0,), step=100, clip=clip
    )
    assert y[1, 1, 0] == x[1, 1, 0] == centre
    np.testing.assert_allclose(w, [0.6, width], rtol=1e-6)
    np.testing.assert_allclose(h, [0.6, 0.3], rtol=1e-6)
