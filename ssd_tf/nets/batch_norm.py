"""Batch normalisation that trains in two passes over the data.

Knows nothing of networks.
"""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="ssd_tf")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer, in training by TensorFlow's one op for all of it.

    Keras computes moments, normalisation and gradient by some twenty
    operations, each of which goes through memory; that was more than half of
    a MobileNet's training step on a CPU. The numbers are the same but for
    rounding, and so are settings and variables. Statistics over several
    replicas (`synchronized`) and inference are left to Keras.
    """

    def call(self, inputs, training=None, mask=None):
        fits = len(inputs.shape) == 4 and self.axis in (-1, 3)
        plain = mask is None and not (self.renorm or self.synchronized)
        if not (training and self.trainable and fits and plain):
            return super().call(inputs, training=training, mask=mask)
        # The op, not `tf.compat.v1.nn.fused_batch_norm`: that one silently
        # raises an epsilon of 1e-5.
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=_or_constant(self.gamma, 1.0, inputs),
            offset=_or_constant(self.beta, 0.0, inputs),
            mean=[],  # only in inference
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        number = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        # The op estimates the population's variance (n - 1); Keras averages
        # the sample's (n).
        variance *= tf.maximum(number - 1.0, 1.0) / number
        self._follow(self.moving_mean, mean)
        self._follow(self.moving_variance, variance)
        return outputs

    def _follow(self, average, value):
        average.assign(average * self.momentum + value * (1.0 - self.momentum))


def _or_constant(weight, value, inputs):
    if weight is None:
        return tf.fill([inputs.shape[-1]], value)
    return tf.convert_to_tensor(weight)
