"""Shifted products give what Keras's dilated convolution gives."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.nets.keras_layers import DilatedConv2D

# Sums of 9 * 16 products in another order: some ulp of float32, of which the
# outputs' cancelling leaves more. In bfloat16 nine values are rounded, to 2^-9
# of themselves, and on CPUs without it their eight sums, too: 0.033.
TOLERANCE = {"float32": 3e-6, "mixed_bfloat16": 4e-2}


def applied(layer_class, shape, precision, **how):
    """Output, gradients by input and weights."""
    random = np.random.default_rng(0)
    layer = layer_class(8, padding="same", dtype=precision, **how)
    layer.build(shape)
    for weight in layer.weights:
        weight.assign(random.normal(size=weight.shape))
    inputs = tf.constant(random.normal(size=shape), layer.compute_dtype)
    upstream = random.normal(size=(*shape[:3], 8))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs)
        sources = [inputs, *(w.value for w in layer.trainable_weights)]
        return outputs, *tape.gradient(
            outputs, sources, tf.cast(upstream, outputs.dtype)
        )

    return [tf.cast(result, tf.float32).numpy() for result in step()]


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize(
    ("size", "kernel", "rate"),
    [
        ((19, 19), 3, 6),  # conv6 of SSD300
        ((32, 17), 3, 6),
        ((7, 6), 3, 6),  # taps that meet one row, and none
        ((1, 1), 3, 6),  # the middle tap alone
        ((9, 12), (5, 3), (2, 4)),
        ((6, 6), 3, 1),
    ],
)
def test_as_keras_layer(size, kernel, rate, precision):
    shape, how = (2, *size, 16), {"kernel_size": kernel, "dilation_rate": rate}
    expected = applied(keras.layers.Conv2D, shape, precision, **how)
    actual = applied(DilatedConv2D, shape, precision, **how)
    assert len(actual) == len(expected) == 4
    for one, other in zip(actual, expected, strict=True):
        error = np.abs(one - other).max() / np.abs(other).max()
        assert error < TOLERANCE[precision]


def test_by_hand():
    """Ones under a kernel of ones: the number of taps inside the image."""
    layer = DilatedConv2D(
        1,
        3,
        dilation_rate=2,
        padding="same",
        kernel_initializer="ones",
    )
    counts = layer(np.ones((1, 3, 5, 1), np.float32))[0, :, :, 0]
    # Rows 0, 1, 2 of 3 see rows {0, 2}, {1}, {0, 2}.
    np.testing.assert_array_equal(
        counts, [[4, 4, 6, 4, 4], [2, 2, 3, 2, 2], [4, 4, 6, 4, 4]]
    )


@pytest.mark.parametrize(
    "how",
    [
        {"padding": "valid"},
        {"padding": "same", "strides": 2},
        {"padding": "same", "kernel_size": 2},
        {"padding": "same", "groups": 2},
    ],
)
def test_refuses_what_it_does_not_do(how):
    how = {"kernel_size": 3, "dilation_rate": 1, **how}
    with pytest.raises(ValueError, match="DilatedConv2D is for SAME"):
        DilatedConv2D(8, **how)
