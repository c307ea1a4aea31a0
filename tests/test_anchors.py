"""Anchors: Caffe's formulas and numbers by hand."""

import dataclasses
import math

import numpy as np
import pytest

from ssd_tf import anchors as anchor_boxes
from ssd_tf.config import PRESETS, SSD_300_VGG, SSD_300_VGG_VOC


def flat(params):
    return anchor_boxes.flatten_anchors(
        anchor_boxes.ssd_anchors_all_layers(params)
    )


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
    _, _, h, w = anchor_boxes.ssd_anchors_all_layers(SSD_300_VGG_VOC)[layer]
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


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("ssd_300_vgg", 8732),
        ("ssd_300_vgg_voc", 8732),
        ("ssd_512_vgg", 24564),
        ("ssd_300_mobilenet_v2", 8732),
        ("ssd_128_mobilenet_v2", 1364),
    ],
)
def test_number_of_anchors(name, number):
    assert flat(PRESETS[name]).shape == (number, 4)
    assert flat(PRESETS[name]).dtype == np.float32


def test_flat_order_is_layer_row_column_anchor():
    flat_anchors = flat(SSD_300_VGG)
    layer, row, column, anchor = 1, 3, 17, 4
    y, x, h, w = anchor_boxes.ssd_anchors_all_layers(SSD_300_VGG)[layer]
    index = 38 * 38 * 4 + (row * 19 + column) * 6 + anchor
    expected = [y[row, column, 0], x[row, column, 0], h[anchor], w[anchor]]
    np.testing.assert_array_equal(flat_anchors[index], expected)
    # Ratio 3 lies: its width is three times its height.
    assert w[anchor] / h[anchor] == pytest.approx(3)


def test_centres_and_sizes_are_not_clipped():
    flat_anchors = flat(SSD_300_VGG)
    # Row 9 of block8, and the lying anchor of block11: 1.2304 wide.
    assert flat_anchors[:, 0].max() == pytest.approx(9.5 * 32 / 300)
    assert flat_anchors[:, 3].max() == pytest.approx(261 / 300 * 2**0.5)


def test_another_image_shape():
    layers = anchor_boxes.ssd_anchors_all_layers(SSD_300_VGG, (600, 300))
    before = anchor_boxes.ssd_anchors_all_layers(SSD_300_VGG)
    for (y, x, h, w), (y_0, x_0, h_0, w_0) in zip(layers, before, strict=True):
        np.testing.assert_allclose(y, y_0 / 2, rtol=1e-6)
        np.testing.assert_allclose(h, h_0 / 2, rtol=1e-6)
        np.testing.assert_array_equal(x, x_0)
        np.testing.assert_array_equal(w, w_0)


def test_layers_that_do_not_agree_in_number_are_refused():
    params = dataclasses.replace(SSD_300_VGG, anchor_steps=(8, 16))
    with pytest.raises(ValueError):
        anchor_boxes.ssd_anchors_all_layers(params)
