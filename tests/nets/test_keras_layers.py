"""L2 normalisation, and the private API of Keras that nets depend on."""

import keras
import numpy as np
import tensorflow as tf

from ssd_tf.nets.keras_layers import L2Normalization, graph_tensors


def test_l2_normalization_by_hand():
    layer = L2Normalization(10)
    out = layer(np.array([[[[3, -4], [0, 0]]]], np.float32))
    np.testing.assert_allclose(out, [[[[6, -8], [0, 0]]]], rtol=1e-6)
    layer.gamma.assign([1, 2])
    out = layer(np.array([[[[3, -4]]]], np.float32))
    np.testing.assert_allclose(out, [[[[0.6, -1.6]]]], rtol=1e-6)


def test_l2_normalization_keeps_the_precision_of_its_input():
    layer = L2Normalization(20, dtype="mixed_bfloat16")
    out = layer(tf.constant([[1e8, 0], [1e-3, 0]], tf.bfloat16))
    assert out.dtype == tf.bfloat16
    np.testing.assert_array_equal(tf.cast(out, tf.float32), [[20, 0], [20, 0]])


def test_keras_still_has_the_private_graph_of_a_model():
    """Fails on a Keras that no longer has `Operation._inbound_nodes`.

    Only `graph_tensors` uses it; write that anew for such a version.
    """
    inputs = keras.Input((8, 8, 3))
    left = keras.layers.Conv2D(4, 3, name="left")(inputs)
    block = keras.Sequential([keras.layers.Conv2D(4, 3)], name="block")
    right = block(inputs)
    total = left + right  # an operation that is no layer
    model = keras.Model(inputs, total)
    found = {
        operation.name: graph_tensors(operation)
        for operation in model.operations
        if not isinstance(operation, keras.layers.InputLayer)
    }
    assert len(found) == 3
    sources, output = found.pop("left")
    assert sources[0] is inputs and output is left
    # The block's result, not the tensor of the same layer inside it.
    sources, output = found.pop("block")
    assert sources[0] is inputs and output is right
    assert output is not block.layers[-1].output
    ((sources, output),) = found.values()
    assert sources[0] is left and sources[1] is right and output is total
