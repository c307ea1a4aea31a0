"""A VGG-16's dense layers as SSD's conv6 and conv7."""

import keras
import numpy as np
import pytest

from ssd_tf.command import UserError
from ssd_tf.nets import layers, vgg
from ssd_tf.weights.vgg_dense import reduce_fc

FC6 = (7, 7, 512, 4096)
FC7 = (4096, 4096)


def reduced(fc6=None, fc7=None, biases=None):
    """`reduce_fc` with zeros for what is not given."""
    zeros = np.zeros(4096, np.float32)
    return reduce_fc(
        np.broadcast_to(np.float32(0), FC6) if fc6 is None else fc6,
        zeros if biases is None else biases,
        np.broadcast_to(np.float32(0), FC7) if fc7 is None else fc7,
        zeros if biases is None else 10_000 + biases,
    )


def positions(axis, shape, factor=1):
    """An array with `factor` times the index along an axis in every cell."""
    index = np.arange(shape[axis]) * factor
    return np.expand_dims(index, [i for i in range(len(shape)) if i != axis])


def test_every_third_row_and_column_and_every_fourth_output_are_taken():
    values = sum(
        positions(axis, FC6, factor)
        for axis, factor in ((0, 100_000), (1, 10_000), (3, 1))
    )
    conv6 = reduced(fc6=np.broadcast_to(values, FC6))["conv6/weights"]
    assert conv6.shape == (3, 3, 512, 1024)
    np.testing.assert_array_equal(
        conv6[:, :, 0, 0],
        [[0, 30_000, 60_000], [300_000, 330_000, 360_000]]
        + [[600_000, 630_000, 660_000]],
    )
    np.testing.assert_array_equal(conv6[0, 0, 0, :3], [0, 4, 8])
    assert conv6[2, 1, 511, 1023] == 634_092


def test_all_inputs_of_fc6_are_kept():
    fc6 = np.broadcast_to(positions(2, FC6), FC6)
    conv6 = reduced(fc6=fc6)["conv6/weights"]
    np.testing.assert_array_equal(conv6[1, 2, :, 7], np.arange(512))


@pytest.mark.parametrize("shape", [FC7, (1, 1, *FC7)])
def test_fc7_keeps_the_inputs_that_conv6_has(shape):
    fc7 = np.arange(4096 * 4096, dtype=np.int32).reshape(shape)
    conv7 = reduced(fc7=fc7)["conv7/weights"]
    assert conv7.shape == (1, 1, 1024, 1024)
    np.testing.assert_array_equal(conv7[0, 0, 0, :3], [0, 4, 8])
    np.testing.assert_array_equal(conv7[0, 0, :2, 0], [0, 4 * 4096])
    assert conv7[0, 0, 1023, 1023] == 4092 * 4096 + 4092


def test_biases_are_those_of_the_same_units():
    arrays = reduced(biases=np.arange(4096))
    expected = np.arange(0, 4096, 4)
    np.testing.assert_array_equal(arrays["conv6/biases"], expected)
    np.testing.assert_array_equal(arrays["conv7/biases"], 10_000 + expected)


def test_layers_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"fc7 weights.*\(100, 4096\), a VGG"):
        reduced(fc7=np.zeros((100, 4096)))
    with pytest.raises(UserError, match=r"fc6 weights.*\(1, 7, 512, 4096\)"):
        reduced(fc6=np.zeros((1, 7, 512, 4096)))


@pytest.fixture(scope="module")
def dense():
    """fc6 that is zero where decimation drops it, and biases."""
    random = np.random.default_rng(0)
    fc6 = np.zeros(FC6, np.float32)
    fc6[::3, ::3] = random.standard_normal((3, 3, 512, 4096), np.float32)
    fc6 /= 48  # sqrt(9 * 512 / 2), He's initialization
    return fc6, random.standard_normal(4096, np.float32)


def run_dense(dense, pooled):
    """fc6 of a 7x7x512 map, in float64, as the classifier computes it."""
    fc6, biases = dense
    taps = np.float64(pooled)[::3, ::3]  # fc6 is zero elsewhere
    sums = np.tensordot(taps, np.float64(fc6[::3, ::3]), 3) + biases
    return np.maximum(sums, 0)


@pytest.fixture(scope="module")
def trunk(dense):
    """SSD's trunk for 224 pixels, with conv6 from `dense`: image -> blocks."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((224, 224, 3))
    _, end_points = vgg.vgg_16(inputs)
    model = keras.Model(inputs, end_points)
    arrays = reduced(fc6=dense[0])
    arrays["conv6/biases"] = dense[1][::4]
    for variable in model.variables:
        name = layers.variable_name(variable)
        if name.startswith("conv6/"):
            variable.assign(arrays[name])
    return model


def test_conv6_is_fc6_where_both_poolings_see_the_same(dense, trunk):
    # SSD's pool5 takes 3x3 cells around 0, 6 and 12 of 14, the classifier's
    # 2x2 from there on: what only SSD sees are rows and columns 5 and 11.
    block5 = np.random.default_rng(2).random((14, 14, 512), np.float32)
    block5[[5, 11]] = 0
    block5[:, [5, 11]] = 0
    pooled = block5.reshape(7, 2, 7, 2, 512).max(axis=(1, 3))
    ends = [trunk.get_layer(f"conv{name}").output for name in ("5.conv5_3", 6)]
    conv6 = np.asarray(keras.Model(*ends)(block5[None]))
    assert conv6.shape == (1, 14, 14, 1024)
    expected = run_dense(dense, pooled)[::4]
    assert 0.2 < (expected > 0).mean() < 0.8
    # Sums of 4608 products in float32.
    np.testing.assert_allclose(conv6[0, 6, 6], expected, atol=1e-5, rtol=0)


def test_conv6_of_a_picture_is_fc6_on_the_pooling_of_ssd(dense, trunk):
    image = np.random.default_rng(3).uniform(-120, 130, (1, 224, 224, 3))
    end_points = trunk(image.astype(np.float32))
    block5 = np.asarray(end_points["block5"])[0]
    padded = np.pad(block5, [(1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
    pooled = windows.max(axis=(-2, -1))
    # Every other cell of stride 16 is one of stride 32.
    expected = run_dense(dense, pooled[::2, ::2])[::4]
    np.testing.assert_allclose(
        np.asarray(end_points["block6"])[0, 6, 6],
        expected,
        atol=1e-6 * expected.max(),
        rtol=0,
    )
