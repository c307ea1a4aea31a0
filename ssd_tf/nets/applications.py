"""Any model of keras.applications as a trunk: image -> end points.

The definitions are Keras's own, so that its ImageNet weights load by layer
name. Independent of classes and anchors.
"""

import collections
import dataclasses
import importlib
import math
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from ssd_tf.command import UserError
from ssd_tf.config.net import SSDParams
from ssd_tf.nets.keras_layers import FusedBatchNormalization, graph_tensors
from ssd_tf.nets.layers import BATCH_NORM_DECAY

STRIDES = (4, 8, 16, 32)
# Epsilon of batch norm where the weights do not come from Keras or slim.
_TORCH_EPSILON = 1e-5


def application(
    inputs: Any,
    name: str,
    variant: str = "keras",
    width_multiplier: float = 1.0,
    batch_norm_decay: float = BATCH_NORM_DECAY,
) -> tuple[Any, dict]:
    """Builds a classifier of keras.applications without its top.

    Args:
      inputs: Keras tensor `[B, h, w, 3]`, RGB, whitened, see `whitening`.
      name: name of the model's function, such as `MobileNetV2`.
      variant: `torchvision` pads convolutions of stride 2 on all four sides,
        where Keras and slim pad an even input below and on the right only.
      width_multiplier: factor of all numbers of channels (a MobileNet's
        `alpha`).
      batch_norm_decay: decay of batch norm's moving averages.

    Returns:
      The last tensor, and those end points of `stride4`, `stride8`,
      `stride16` and `stride32` that the model has. An end point is the last
      tensor of its stride with the most channels; in a MobileNet that is the
      expanded one inside the next block (Sandler et al., 2018, section 6.2).

    Raises:
      ValueError: keras.applications has no such model.
    """
    options = {} if width_multiplier == 1.0 else {"alpha": width_multiplier}
    trunk = with_stable_names(
        model_function(name)(
            input_tensor=inputs, include_top=False, weights=None, **options
        ),
        inputs,
    )
    if variant == "torchvision":
        trunk = _padded_on_all_sides(trunk, inputs)
    trunk = _with_batch_norm(trunk, inputs, variant, batch_norm_decay)
    return trunk.output, _end_points(trunk)


def model_function(name: str) -> Callable[..., keras.Model]:
    """Returns the function of keras.applications that makes a model.

    Raises:
      ValueError: keras.applications has no model of this name.
    """
    make = getattr(keras.applications, name, None)
    if not callable(make):
        raise ValueError(f"keras.applications has no model {name!r}")
    return make


def whitening(name: str) -> tuple[tuple, tuple, bool]:
    """Measures the preprocessing of a model of keras.applications.

    Args:
      name: name of the model's function.

    Returns:
      Mean and scale for RGB, three numbers each: the input is
      `(pixel - mean) * scale`. And whether the first convolution of the
      published weights takes BGR; the importer then reverses its channels.
    """
    module = importlib.import_module(model_function(name).__module__)
    # `preprocess_input` is linear in each channel, so two values determine it:
    # black, and 255 in one of the channels.
    pixels = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)])
    black, *bright = module.preprocess_input(pixels[:, None, None])[:, 0, 0]
    slopes = (np.array(bright) - black) / 255  # [channel in, channel out]
    bgr = slopes[0, 0] == 0
    order = slice(None, None, -1) if bgr else slice(None)
    scale = np.diagonal(slopes[:, order])
    mean = 0.0 - black[order] / scale
    return tuple(mean.tolist()), tuple(scale.tolist()), bool(bgr)


def with_trunk(params: SSDParams, name: str) -> SSDParams:
    """Returns a preset on another trunk, of width multiplier 1.

    Args:
      params: a preset whose trunk is not VGG-16, so that its feature layers
        are end points of given strides.
      name: name of a model of keras.applications.

    Raises:
      UserError: the preset's trunk is VGG-16, or keras.applications has no
        model of this name.
    """
    if params.trunk == "vgg_16":
        raise UserError(
            f"--trunk={name}: the heads of {params.model_name} are made for "
            "VGG-16; choose a --model_name of another trunk"
        )
    try:
        mean, scale, _ = whitening(name)
    except ValueError as error:
        raise UserError(f"--trunk={name}: {error}") from None
    return dataclasses.replace(
        params,
        trunk=name,
        trunk_variant="keras",
        width_multiplier=1.0,
        image_mean=mean,
        image_scale=scale,
    )


def with_stable_names(model: keras.Model, inputs: Any) -> keras.Model:
    """Returns the model with layer names that are the same in every process.

    Keras numbers layers without a name through the whole process: the same
    layer is `conv2d_3` in the first model and `conv2d_8` in the second.

    Args:
      model: a model of keras.applications.
      inputs: its input tensor.

    Returns:
      The model itself if all of its layers with weights have been given
      names. Else a fresh model, in which layers without a name are numbered
      by class within the model: `conv2d_0`, `conv2d_1` ...
    """
    counts: collections.Counter = collections.Counter()
    names = {}
    for layer in model.layers:
        kind = snake_case(type(layer).__name__)
        if re.fullmatch(rf"{kind}(_\d+)?", layer.name):
            names[layer.name] = f"{kind}_{counts[kind]}"
            counts[kind] += 1
    if not any(x.weights for x in model.layers if x.name in names):
        return model

    def clone(layer):
        name = names.get(layer.name, layer.name)
        return layer.__class__.from_config({**layer.get_config(), "name": name})

    return _clone(model, inputs, clone_function=clone)


def _clone(model: keras.Model, inputs: Any, **functions) -> keras.Model:
    tensors = keras.tree.pack_sequence_as(model.input, [inputs])
    return keras.models.clone_model(model, input_tensors=tensors, **functions)


def snake_case(name: str) -> str:
    """Converts `SeparableConv2D` to `separable_conv2d`, as Keras names it."""
    starts = r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])"
    return re.sub(starts, "_", name).lower()


def _end_points(trunk: keras.Model) -> dict[str, Any]:
    """Returns for every stride the last tensor with the most channels.

    In a model with branches a tensor of fewer channels may be one branch
    alone. The end of the trunk is an end point whatever its channels.
    """
    strides = {id(trunk.inputs[0]): 1}
    end_points: dict[str, Any] = {}
    # Not `trunk.layers`: a sum may be an operation without a layer.
    for layer in trunk.operations:
        sources, tensor = graph_tensors(layer)
        known = [strides[id(x)] for x in sources if id(x) in strides]
        # The average over all cells (of a squeeze-and-excite) is not a feature
        # map, and neither is what follows from it alone.
        if not known or type(layer).__name__.startswith("Global"):
            continue
        stride = max(known) * _stride_of(layer)
        strides[id(tensor)] = stride
        # Padding for the next stride would add a border of zeros.
        padded = isinstance(layer, keras.layers.ZeroPadding2D)
        widest = end_points.get(f"stride{stride}", tensor)
        if tensor.shape[-1] >= widest.shape[-1] and not padded:
            end_points[f"stride{stride}"] = tensor
    end_points[f"stride{strides[id(trunk.output)]}"] = trunk.output
    wanted = [f"stride{stride}" for stride in STRIDES]
    return {name: end_points[name] for name in wanted if name in end_points}


def _stride_of(layer: keras.Operation) -> int:
    """Returns the stride of a layer, or of a block of layers (ConvNeXt's)."""
    if hasattr(layer, "layers"):
        return math.prod(map(_stride_of, layer.layers))
    strides = getattr(layer, "strides", 1)
    return strides if isinstance(strides, int) else strides[0]


def _with_batch_norm(
    trunk: keras.Model, inputs: Any, variant: str, decay: float
) -> keras.Model:
    """Clones the model with fused batch norm of the variant's epsilon."""

    def clone(layer):
        config = layer.get_config()
        if not isinstance(layer, keras.layers.BatchNormalization):
            return layer.__class__.from_config(config)
        config["momentum"] = decay
        if variant == "torchvision":
            config["epsilon"] = _TORCH_EPSILON
        return FusedBatchNormalization.from_config(config)

    return _clone(trunk, inputs, clone_function=clone)


def _padded_on_all_sides(trunk: keras.Model, inputs: Any) -> keras.Model:
    """Clones the model with symmetric padding before every stride of 2."""

    def pads_itself(config: dict) -> bool:
        # At stride 2, SAME pads an even input below and on the right only.
        return (
            config.get("padding") == "same"
            and max(config["strides"]) > 1
            and max(config["kernel_size"]) > 1
        )

    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.ZeroPadding2D):
            config["padding"] = 1
        elif "kernel_size" in config and pads_itself(config):
            config["padding"] = "valid"
        return layer.__class__.from_config(config)

    def call(layer, *args, **kwargs):
        config = trunk.get_layer(layer.name).get_config()
        if "kernel_size" in config and pads_itself(config):
            pad = keras.layers.ZeroPadding2D(1, name=f"{layer.name}_pad")
            args = (pad(args[0]), *args[1:])
        return layer(*args, **kwargs)

    return _clone(trunk, inputs, clone_function=clone, call_function=call)
