"""Batch normalisation in few passes over the data.

Knows nothing of networks.
"""

from collections.abc import Iterator
from typing import NamedTuple

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="ssd_tf")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer by TensorFlow's one op for all of it.

    Keras computes moments, normalisation and gradient by some twenty
    operations, each of which goes through memory; that was more than half of
    a MobileNet's training step on a CPU. In inference TensorFlow merges the
    op with the convolution before it. The numbers are the same but for
    rounding, and so are settings and variables. Statistics over several
    replicas (`synchronized`) are left to Keras.
    """

    def call(self, inputs, training=None, mask=None):
        learns = bool(training and self.trainable)
        fits = len(inputs.shape) == 4 and self.axis in (-1, 3)
        plain = mask is None and not self.renorm
        if not (fits and plain) or (learns and self.synchronized):
            return super().call(inputs, training=training, mask=mask)
        averages = self.moving_mean, self.moving_variance
        # The op, not `tf.compat.v1.nn.fused_batch_norm`: that one silently
        # raises an epsilon of 1e-5.
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
            # The op estimates the population's variance (n - 1); Keras
            # averages the sample's (n).
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
    """Keras's layer, computed tap by tap: SAME padding, stride 1, odd kernel.

    TensorFlow cuts the image into a grid of small ones, pads those and
    convolves them without dilation. At conv6 (19 x 19 cells, rate 6) that
    took four times as long on a CPU as the nine products here, of which eight
    leave out the cells that a tap would take from the padding. The numbers
    are the same but for rounding; so are settings and variables. In bfloat16
    each of the nine is rounded before they are added, which makes two
    roundings' error of one.

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
        # Not `add_n`, whose order is that in which memory happens to be free.
        return sum(products)


class _Shift(NamedTuple):
    """What one tap does along one axis."""

    tap: int  # index in the kernel
    source: slice  # cells that it takes
    padding: tuple[int, int]  # places around the result that it leaves alone


def _shifts(size: int, taps: int, rate: int) -> Iterator[_Shift]:
    """The taps that meet any of `size` cells."""
    for tap in range(taps):
        offset = (tap - taps // 2) * rate
        if abs(offset) < size:
            before, after = max(-offset, 0), max(offset, 0)
            yield _Shift(tap, slice(after, size - before), (before, after))
