"""Batch normalisation in few passes over the data.

Knows nothing of networks.
"""

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
