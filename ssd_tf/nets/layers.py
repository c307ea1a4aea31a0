"""Slim-style layer functions on Keras layers, configured by `arg_scope`.

The one module that knows tf_slim, and of it only `arg_scope`. A scope is a
dotted path such as `conv1.conv1_1` and becomes the Keras layer's name (which
may not contain a slash), so that every variable has the name that the port's
checkpoints give it, see `variable_name`. Nothing here knows of SSD.
"""

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from ssd_tf.nets.keras_layers import DilatedConv2D, FusedBatchNormalization

with warnings.catch_warnings():
    # tf_slim is unmaintained and its import warns about old spellings.
    warnings.simplefilter("ignore")
    from tf_slim.ops.arg_scope import add_arg_scope, arg_scope

__all__ = ["arg_scope"]

# Of the moving averages, as TFOD's SSD on MobileNetV2 has it. With Keras's own
# .99 and .999 a run of some hundred steps is evaluated on averages that still
# remember their initial values.
BATCH_NORM_DECAY = 0.97

_VARIABLE_NAMES = {"kernel": "weights", "bias": "biases"}


@keras.saving.register_keras_serializable(package="ssd_tf")
class L2Normalization(keras.layers.Layer):
    """Scales every position to unit length over the channels, times `gamma`.

    ParseNet (Liu et al., 2015), section 3.2; Caffe's Normalize layer with
    `across_spatial: false`. Computes in float32 under any policy.
    """

    EPSILON = 1e-12  # of the squared length, the port's

    def __init__(self, scale: float = 1.0, **kwargs):
        """`scale`: where `gamma`, one number a channel, starts."""
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


@contextlib.contextmanager
def dtype_policy(precision: str) -> Iterator[None]:
    """Layers made inside compute in `precision`, a Keras policy's name."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@add_arg_scope
def conv2d(
    inputs,
    num_outputs: int,
    kernel_size: int,
    stride: int = 1,
    padding: str = "SAME",
    rate: int = 1,
    activation_fn: str | None = "relu",
    normalizer_fn: Callable | None = None,
    kernel_initializer: str = "glorot_uniform",
    dtype: str | None = None,
    scope: str = None,
):
    """Convolution, then `normalizer_fn` if any (no bias then), then activation.

    Args:
      inputs: Keras tensor `[B, h, w, c]`.
      num_outputs: channels of the result.
      kernel_size: side, cells.
      stride, padding, rate: as in `tf.nn.convolution`; rate is the dilation,
        beyond 1 only with stride 1, SAME and an odd kernel.
      activation_fn: a Keras activation's name, or None.
      normalizer_fn: such as `batch_norm`; called with `scope`.
      kernel_initializer: a Keras initializer's name; Xavier as in the port.
      dtype: to compute in, instead of the policy's.
      scope: name of the layer.
    """
    plain = normalizer_fn is None
    layer = keras.layers.Conv2D if rate == 1 else DilatedConv2D
    net = layer(
        num_outputs,
        kernel_size,
        strides=stride,
        padding=padding.lower(),
        dilation_rate=rate,
        activation=activation_fn if plain else None,
        use_bias=plain,
        kernel_initializer=kernel_initializer,
        dtype=dtype,
        name=scope,
    )(inputs)
    return (
        net if plain else _normalize(net, normalizer_fn, activation_fn, scope)
    )


@add_arg_scope
def separable_conv2d(
    inputs,
    num_outputs: int | None,
    kernel_size: int,
    stride: int = 1,
    padding: str = "SAME",
    activation_fn: str | None = "relu",
    normalizer_fn: Callable | None = None,
    dtype: str | None = None,
    scope: str = None,
):
    """Depthwise convolution with its own norm and activation, then pointwise.

    As in slim, `num_outputs=None` leaves out the pointwise convolution, which
    otherwise is plain: no norm, no activation (SSDLite's heads); it computes
    in `dtype`, if one is given.
    """
    net = keras.layers.DepthwiseConv2D(
        kernel_size,
        strides=stride,
        padding=padding.lower(),
        use_bias=normalizer_fn is None,
        activation=activation_fn if normalizer_fn is None else None,
        name=f"{scope}.depthwise",
    )(inputs)
    if normalizer_fn is not None:
        net = _normalize(
            net, normalizer_fn, activation_fn, f"{scope}.depthwise"
        )
    if num_outputs is None:
        return net
    return keras.layers.Conv2D(
        num_outputs, 1, dtype=dtype, name=f"{scope}.pointwise"
    )(net)


def _normalize(inputs, normalizer_fn, activation_fn, scope):
    net = normalizer_fn(inputs, scope=f"{scope}.BatchNorm")
    if activation_fn is None:
        return net
    return keras.layers.Activation(
        activation_fn, name=f"{scope}.{activation_fn}"
    )(net)


@add_arg_scope
def batch_norm(
    inputs,
    decay: float = BATCH_NORM_DECAY,
    epsilon: float = 1e-3,
    scope: str = None,
):
    """Batch normalisation; `decay` is that of the moving averages."""
    return FusedBatchNormalization(momentum=decay, epsilon=epsilon, name=scope)(
        inputs
    )


@add_arg_scope
def max_pool2d(
    inputs,
    kernel_size: int,
    stride: int = 2,
    padding: str = "SAME",
    scope: str = None,
):
    """Max pooling; SAME with stride 2 rounds up, as Caffe's does."""
    return keras.layers.MaxPooling2D(
        kernel_size, strides=stride, padding=padding.lower(), name=scope
    )(inputs)


def pad2d(inputs, pad: int | tuple[int, int], scope: str):
    """Zero padding by `pad` cells on all four sides, as Caffe pads.

    Two numbers are for above and below, and for left and right.
    """
    if pad in (0, (0, 0)):
        return inputs
    return keras.layers.ZeroPadding2D(pad, name=scope)(inputs)


def l2_normalization(inputs, scale: float, scope: str):
    """See `L2Normalization`."""
    return L2Normalization(scale, name=scope)(inputs)


def dropout(inputs, rate: float, scope: str):
    """Drops the share `rate` (not keeps it) of the values in training."""
    return keras.layers.Dropout(rate, name=scope)(inputs) if rate else inputs


def repeat(inputs, repetitions: int, layer: Callable, *args, scope: str):
    """`slim.repeat`: `scope.scope_1`, `scope.scope_2`... one on the other.

    slim's own refuses Keras's symbolic tensors.
    """
    net = inputs
    for index in range(1, repetitions + 1):
        net = layer(net, *args, scope=f"{scope}.{scope}_{index}")
    return net


def synchronize_batch_norm(model: keras.Model) -> None:
    """Takes the statistics of batch norm over all replicas from now on.

    Otherwise the result would depend on the number of replicas.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def variable_name(variable: keras.Variable) -> str:
    """A variable's name in slim's style, as in the port's checkpoints.

    `conv1.conv1_1/kernel` is `conv1/conv1_1/weights`.
    """
    layer, name = variable.path.rsplit("/", 1)
    # One without a name has a number of the whole process.
    name = re.sub(r"^variable_\d+$", "variable", name)
    return f"{layer.replace('.', '/')}/{_VARIABLE_NAMES.get(name, name)}"
