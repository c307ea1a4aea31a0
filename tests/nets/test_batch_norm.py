"""Fused batch norm gives what Keras's own layer gives, only sooner."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.nets import nets_factory
from ssd_tf.nets.keras_layers import FusedBatchNormalization

KERAS = keras.layers.BatchNormalization
# Two orders of summation over 252 values: some ulp of float32; an output is
# rounded to its own type at the end.
TOLERANCE = {"float32": 2e-6, "mixed_bfloat16": 8e-3, "mixed_float16": 1e-3}


def trained_once(layer_class, precision="float32", shape=(4, 9, 7, 24), **how):
    """Output, gradients by input and weights, new moving averages."""
    random = np.random.default_rng(0)
    layer = layer_class(dtype=precision, momentum=0.9, **how)
    layer.build(shape)
    for weight in layer.weights:
        weight.assign(random.uniform(0.5, 2.0, weight.shape))
    inputs = tf.constant(random.normal(2, 3, shape), layer.compute_dtype)
    upstream = tf.constant(random.normal(0, 1, shape), layer.compute_dtype)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
        sources = [inputs, *(w.value for w in layer.trainable_weights)]
        return outputs, *tape.gradient(outputs, sources, upstream)

    results = [tf.cast(result, tf.float32).numpy() for result in step()]
    return results + [w.numpy() for w in layer.non_trainable_weights]


def relative(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("how", [{"epsilon": 1e-5}, {"scale": False}])
def test_as_keras_layer(precision, how):
    expected = trained_once(KERAS, precision, **how)
    actual = trained_once(FusedBatchNormalization, precision, **how)
    assert len(actual) == len(expected) == (5 if "scale" in how else 6)
    for one, other in zip(actual, expected, strict=True):
        assert relative(one, other) < TOLERANCE[precision]


def test_averages_of_a_single_value():
    """One value has variance 0, and no n - 1 to divide by."""
    shape = (1, 1, 1, 8)
    *_, mean, variance = trained_once(FusedBatchNormalization, shape=shape)
    *_, keras_mean, keras_variance = trained_once(KERAS, shape=shape)
    np.testing.assert_array_equal(mean, keras_mean)
    np.testing.assert_array_equal(variance, keras_variance)


def test_repeats_bit_for_bit():
    """What exact resume needs, with several threads at work."""
    shape = (8, 37, 41, 96)
    first = trained_once(FusedBatchNormalization, shape=shape)
    second = trained_once(FusedBatchNormalization, shape=shape)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("frozen", [False, True])
def test_inference_and_frozen_layers_use_the_averages(frozen, precision):
    results = []
    for layer_class in (KERAS, FusedBatchNormalization):
        random = np.random.default_rng(0)
        layer = layer_class(dtype=precision)
        inputs = tf.constant(random.normal(1, 2, (2, 5, 3, 4)), tf.float32)
        inputs = tf.cast(inputs, layer.compute_dtype)
        layer.build(inputs.shape)
        for weight in layer.weights:
            weight.assign(random.uniform(0.5, 2.0, weight.shape))
        averages = [w.numpy() for w in layer.non_trainable_weights]
        layer.trainable = not frozen
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=frozen)
            total = tf.reduce_sum(tf.cast(outputs, tf.float32) ** 2)
        results.append((outputs, tape.gradient(total, inputs)))
        after = [layer.moving_mean.numpy(), layer.moving_variance.numpy()]
        np.testing.assert_array_equal(after, averages)
    for expected, actual in zip(*results, strict=True):
        assert actual.dtype == expected.dtype
        pair = (tf.cast(x, tf.float32).numpy() for x in (actual, expected))
        assert relative(*pair) < TOLERANCE[precision]


@pytest.mark.parametrize("trunk", ["mobilenet_v2", "resnet50"])
def test_every_net_trains_with_it(trunk):
    net = nets_factory.get_network(f"ssd_300_{trunk}")()
    norms = [x for x in net.model.layers if isinstance(x, KERAS)]
    assert len(norms) > 50
    assert {type(layer) for layer in norms} == {FusedBatchNormalization}
    assert {layer.momentum for layer in norms} == {0.97}
