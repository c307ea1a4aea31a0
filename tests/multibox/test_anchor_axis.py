"""The anchor axis: its order, and that splitting inverts flattening."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config.presets import SSD_300_VGG
from ssd_tf.multibox.anchor_axis import flatten_layers, split_layers
from ssd_tf.multibox.anchors import flatten_anchors, ssd_anchor_one_layer

# Two layers, 2 x 3 cells of 2 anchors and 1 x 2 cells of 3: 18 anchors.
ANCHORS = [
    ssd_anchor_one_layer((4, 6), (2, 3), (2, 3), (), 2),
    ssd_anchor_one_layer((4, 6), (1, 2), (3, 4), (2.0,), 3),
]


def test_the_order_is_layer_row_column_anchor():
    first = np.arange(12).reshape(1, 2, 3, 2)
    second = 12 + np.arange(6).reshape(1, 1, 2, 3)
    flat = flatten_layers([first, second], 0)
    np.testing.assert_array_equal(flat, np.arange(18)[None])
    # Row 1, column 2, anchor 0 of the first layer: (1 * 3 + 2) * 2 = 10.
    assert flat[0, 10] == first[0, 1, 2, 0]


def test_an_anchor_and_its_output_have_the_same_index():
    outputs = [
        np.stack(np.broadcast_arrays(y, x, h, w), axis=-1)[None]
        for y, x, h, w in ANCHORS
    ]
    flat = flatten_layers(outputs, 1)
    np.testing.assert_array_equal(flat[0], flatten_anchors(ANCHORS))


@pytest.mark.parametrize("item", [(), (4,), (4, 2)])
def test_splitting_inverts_flattening(item):
    flat = np.random.default_rng(0).normal(size=(2, 18, *item))
    layers = split_layers(flat, ANCHORS, 1)
    assert [layer.shape for layer in layers] == [
        (2, 2, 3, 2, *item),
        (2, 1, 2, 3, *item),
    ]
    np.testing.assert_array_equal(flatten_layers(layers, len(item)), flat)
    again = split_layers(flatten_layers(layers, len(item)), ANCHORS, 1)
    for layer, other in zip(layers, again, strict=True):
        np.testing.assert_array_equal(layer, other)


def test_one_image_has_its_anchor_axis_first():
    flat = tf.range(18)
    layers = split_layers(flat, ANCHORS, 0)
    assert [layer.shape for layer in layers] == [(2, 3, 2), (1, 2, 3)]
    np.testing.assert_array_equal(layers[1], 12 + np.arange(6).reshape(1, 2, 3))


def test_a_flat_tensor_stays_as_it_is():
    flat = np.ones((2, 18, 21), np.float32)
    np.testing.assert_array_equal(flatten_layers(flat, 1), flat)


def test_the_batch_size_may_be_unknown():
    @tf.function(input_signature=[tf.TensorSpec([None, 18, 4])])
    def there_and_back(flat):
        return flatten_layers(split_layers(flat, ANCHORS, 1), 1)

    assert there_and_back(tf.zeros([5, 18, 4])).shape == (5, 18, 4)


def test_ssd300_has_as_many_anchors_as_the_paper():
    # 38^2 * 4 + 19^2 * 6 + 10^2 * 6 + 5^2 * 6 + 3^2 * 4 + 1 * 4
    cells = [side**2 for side in (38, 19, 10, 5, 3, 1)]
    per_cell = SSD_300_VGG.anchors_per_cell
    assert sum(np.multiply(cells, per_cell)) == 8732
