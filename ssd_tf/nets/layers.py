"""Slim-style layer functions on Keras layers, configured by `arg_scope`.

Only this module imports tf_slim, and of it only `arg_scope`. A `scope` is a
dotted path such as `conv1.conv1_1` and becomes the name of the Keras layer
(which may not contain a slash); `variable_name` turns it into the name that
the port's checkpoints use. Independent of SSD.
"""

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator

import keras

from ssd_tf.nets.keras_layers import (
    DilatedConv2D,
    FusedBatchNormalization,
    L2Normalization,
)

with warnings.catch_warnings():
    # tf_slim is unmaintained and its import warns about old spellings.
    warnings.simplefilter("ignore")
    from tf_slim.ops.arg_scope import add_arg_scope, arg_scope

__all__ = ["arg_scope"]

# Decay of the moving averages, TFOD's for SSD on MobileNetV2. After 300 steps
# an average holds 0.97^300 = 0.01 % of its initial value; with Keras's 0.99 it
# would be 5 %, with its applications' 0.999 74 %.
BATCH_NORM_DECAY = 0.97

_VARIABLE_NAMES = {"kernel": "weights", "bias": "biases"}


@contextlib.contextmanager
def dtype_policy(precision: str) -> Iterator[None]:
    """Sets the Keras dtype policy of the layers that are made inside."""
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
    """Adds a convolution, its normalisation if any, and the activation.

    Args:
      inputs: Keras tensor `[B, h, w, c]`.
      num_outputs: channels of the result.
      kernel_size: side of the kernel, cells.
      stride, padding, rate: as in `tf.nn.convolution`; `rate` is the dilation,
        above 1 only with stride 1, SAME and an odd kernel.
      activation_fn: name of a Keras activation, or None.
      normalizer_fn: a function such as `batch_norm`, called with `scope`; the
        convolution then has no bias.
      kernel_initializer: name of a Keras initializer; Xavier as in the port.
      dtype: dtype of the computation, by default the policy's.
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
    """Adds a depthwise convolution and, with `num_outputs`, a pointwise one.

    Normalisation and activation follow the depthwise convolution; the
    pointwise one has neither, as in SSDLite's heads, and computes in `dtype`.
    `num_outputs=None` leaves it out, as in slim. Other arguments are those of
    `conv2d`.
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
    """Adds batch normalisation; `decay` is that of the moving averages."""
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
    """Adds max pooling; SAME with stride 2 rounds sizes up, as Caffe does."""
    return keras.layers.MaxPooling2D(
        kernel_size, strides=stride, padding=padding.lower(), name=scope
    )(inputs)


def pad2d(inputs, pad: int | tuple[int, int], scope: str):
    """Adds `pad` cells of zeros on all four sides, as Caffe pads.

    Of two numbers the first is for top and bottom, the second for left and
    right.
    """
    if pad in (0, (0, 0)):
        return inputs
    return keras.layers.ZeroPadding2D(pad, name=scope)(inputs)


def l2_normalization(inputs, scale: float, scope: str):
    """Adds an `L2Normalization` whose `gamma` starts at `scale`."""
    return L2Normalization(scale, name=scope)(inputs)


def dropout(inputs, rate: float, scope: str):
    """Adds dropout of a share `rate` of the values in training."""
    return keras.layers.Dropout(rate, name=scope)(inputs) if rate else inputs


def repeat(inputs, repetitions: int, layer: Callable, *args, scope: str):
    """Stacks layers `scope.scope_1`, `scope.scope_2`..., as `slim.repeat`.

    slim's own function does not accept Keras's symbolic tensors.
    """
    net = inputs
    for index in range(1, repetitions + 1):
        net = layer(net, *args, scope=f"{scope}.{scope}_{index}")
    return net


def synchronize_batch_norm(model: keras.Model) -> None:
    """Makes batch norm take its statistics over the batches of all replicas.

    Otherwise the result of a step would depend on the number of replicas.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def variable_name(variable: keras.Variable) -> str:
    """Returns a variable's name in slim's style, as in the port's checkpoints.

    The name of `conv1.conv1_1/kernel` is `conv1/conv1_1/weights`.
    """
    layer, name = variable.path.rsplit("/", 1)
    # Keras numbers variables without a name through the whole process.
    name = re.sub(r"^variable_\d+$", "variable", name)
    return f"{layer.replace('.', '/')}/{_VARIABLE_NAMES.get(name, name)}"
