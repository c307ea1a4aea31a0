"""Layers that Keras lacks, or computes slower than TensorFlow can.

Independent of networks. The module also holds the one use of Keras's private
API, `graph_tensors`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="ssd_tf")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer computed by a single TensorFlow op.

    Keras computes moments, normalisation and gradient by about twenty
    operations, each a pass over memory; on a CPU they took more than half of
    a MobileNet's training step. In inference TensorFlow merges the op with
    the convolution before it. Results equal Keras's but for rounding;
    settings and variables are the same. Statistics over several replicas
    (`synchronized`) are left to Keras.
    """

    def call(self, inputs, training=None, mask=None):
        learns = bool(training and self.trainable)
        fits = len(inputs.shape) == 4 and self.axis in (-1, 3)
        plain = mask is None and not self.renorm
        if not (fits and plain) or (learns and self.synchronized):
            return super().call(inputs, training=training, mask=mask)
        averages = self.moving_mean, self.moving_variance
        # Not `tf.compat.v1.nn.fused_batch_norm`, which silently raises an
        # epsilon of 1e-5.
        outputs, *statistics = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=_or_constant(self.gamma, 1.0, inputs),
            offset=_or_constant(self.beta, 0.0, inputs),
            mean=[] if learns else tf.convert_to_tensor(averages[0]),
            variance=[] if learns else tf.convert_to_tensor(averages[1]),
            epsilon=self.epsilon,
            is_training=learns,
        )
        if learns:
            number = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
            mean, variance, *_ = statistics
            # The op divides squared deviations by n - 1, Keras by n.
            variance *= tf.maximum(number - 1.0, 1.0) / number
            self._follow(averages[0], mean)
            self._follow(averages[1], variance)
        return outputs

    def _follow(self, average, value):
        average.assign(average * self.momentum + value * (1.0 - self.momentum))


def _or_constant(weight, value, inputs):
    if weight is None:
        return tf.fill([inputs.shape[-1]], value)
    return tf.convert_to_tensor(weight)


@keras.saving.register_keras_serializable(package="ssd_tf")
class DilatedConv2D(keras.layers.Conv2D):
    """Keras's layer computed as a sum of 1x1 convolutions, one per tap.

    For SAME padding, stride 1 and an odd kernel. TensorFlow's own kernel
    rearranges the image into rate * rate small ones, pads and convolves them.
    At conv6 (19 x 19 cells, 3x3 kernel, rate 6) that took four times as long
    on a CPU as the nine products here, eight of which skip the cells that
    would come from the padding. Results equal Keras's but for rounding;
    settings and variables are the same. In bfloat16 each of the nine products
    is rounded before the sum, which doubles the rounding error.

    Raises:
      ValueError: another padding, stride, kernel or number of groups.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        odd = all(taps % 2 for taps in self.kernel_size)
        whole = set(self.strides) == {1} and self.groups == 1
        if self.padding != "same" or not (odd and whole):
            raise ValueError(
                "DilatedConv2D is for SAME padding, stride 1, an odd kernel "
                f"and one group; received {self.padding!r}, {self.strides}, "
                f"{self.kernel_size} and {self.groups}"
            )

    def convolution_op(self, inputs, kernel):
        kernel = tf.convert_to_tensor(kernel)
        height, width = inputs.shape[1:3]
        products = [
            tf.pad(
                tf.nn.conv2d(
                    inputs[:, y.source, x.source],
                    kernel[y.tap : y.tap + 1, x.tap : x.tap + 1],
                    strides=1,
                    padding="VALID",
                ),
                [[0, 0], y.padding, x.padding, [0, 0]],
            )
            for y in _shifts(height, self.kernel_size[0], self.dilation_rate[0])
            for x in _shifts(width, self.kernel_size[1], self.dilation_rate[1])
        ]
        # Not `add_n`, whose order of additions may differ between runs.
        return sum(products)


class _Shift(NamedTuple):
    """Cells that one tap reads and writes along one axis."""

    tap: int  # index in the kernel
    source: slice  # cells that it reads
    padding: tuple[int, int]  # cells before and after those that it writes


def _shifts(size: int, taps: int, rate: int) -> Iterator[_Shift]:
    """Yields the taps that read any of `size` cells."""
    for tap in range(taps):
        offset = (tap - taps // 2) * rate
        if abs(offset) < size:
            before, after = max(-offset, 0), max(offset, 0)
            yield _Shift(tap, slice(after, size - before), (before, after))


@keras.saving.register_keras_serializable(package="ssd_tf")
class L2Normalization(keras.layers.Layer):
    """Scales every position to unit length over the channels, times `gamma`.

    ParseNet (Liu et al., 2015), section 3.2; Caffe's Normalize layer with
    `across_spatial: false`. Computes in float32 under any policy.
    """

    EPSILON = 1e-12  # least squared length, the port's

    def __init__(self, scale: float = 1.0, **kwargs):
        """Sets the initial value of `gamma`, which has one per channel."""
        super().__init__(**kwargs)
        self.scale = scale

    def build(self, input_shape):
        self.gamma = self.add_weight(
            name="gamma",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.scale),
        )

    def call(self, inputs):
        x = tf.cast(inputs, tf.float32)
        normalized = tf.math.l2_normalize(x, axis=-1, epsilon=self.EPSILON)
        return tf.cast(
            normalized * tf.cast(self.gamma, tf.float32), inputs.dtype
        )

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


def graph_tensors(operation: keras.Operation) -> tuple[list[Any], Any]:
    """Returns the tensors that an operation of a functional model connects.

    Keras has no public name for them: `layer.output` of a block of layers
    (ConvNeXt's) is a tensor inside the block.

    Args:
      operation: layer or function that is called once, with one result.

    Returns:
      Its Keras input tensors, and its output tensor.
    """
    (node,) = operation._inbound_nodes
    (output,) = node.output_tensors
    return list(node.input_tensors), output
