"""Any model of keras.applications as a trunk: image -> end points.

Keras's own definitions, so that their ImageNet weights load by layer name.
Knows nothing of classes or anchors.
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
from ssd_tf.nets.keras_layers import FusedBatchNormalization
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
    """A classifier of keras.applications without its top.

    Args:
      inputs: Keras tensor `[B, h, w, 3]`, RGB, whitened, see `whitening`.
      name: a function of keras.applications, such as `MobileNetV2`.
      variant: `torchvision` pads convolutions of stride 2 on all sides, where
        Keras and slim pad an even input on two only.
      width_multiplier: of all channels (the `alpha` of a MobileNet).
      batch_norm_decay: of the moving averages.

    Returns:
      The last tensor, and those end points of `stride4`, `stride8`,
      `stride16` and `stride32` that the model has: the last of the widest
      tensors of each, such as the expanded one before a MobileNet's next
      stride (Sandler et al., 2018, section 6.2).

    Raises:
      ValueError: keras.applications has no such model.
    """
    options = {} if width_multiplier == 1.0 else {"alpha": width_multiplier}
    trunk = lastingly_named(
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
    """The function of keras.applications that makes a model.

    Raises:
      ValueError: there is none of that name.
    """
    make = getattr(keras.applications, name, None)
    if not callable(make):
        raise ValueError(f"keras.applications has no model {name!r}")
    return make


def whitening(name: str) -> tuple[tuple, tuple, bool]:
    """How a model of keras.applications wants its images.

    Args:
      name: a function of keras.applications.

    Returns:
      Mean and scale for RGB, three numbers each: the input is
      `(pixel - mean) * scale`; and whether the first convolution of its
      published weights takes BGR, which importing them turns around.
    """
    module = importlib.import_module(model_function(name).__module__)
    # Black, then white in one of the channels: it is linear in each.
    pixels = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)])
    black, *bright = module.preprocess_input(pixels[:, None, None])[:, 0, 0]
    slopes = (np.array(bright) - black) / 255  # [channel in, channel out]
    bgr = slopes[0, 0] == 0
    order = slice(None, None, -1) if bgr else slice(None)
    scale = np.diagonal(slopes[:, order])
    mean = 0.0 - black[order] / scale
    return tuple(mean.tolist()), tuple(scale.tolist()), bool(bgr)


def with_trunk(params: SSDParams, name: str) -> SSDParams:
    """Returns a preset on another trunk, of whole width.

    Args:
      params: a preset whose trunk is not VGG-16: it takes feature maps by
        their strides.
      name: a model of keras.applications.

    Raises:
      UserError: the preset cannot have another trunk, or there is no model
        of that name.
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


def lastingly_named(model: keras.Model, inputs: Any) -> keras.Model:
    """The model, with names of layers that do not depend on earlier models.

    Layers that were given no name are numbered on through the whole process,
    and nothing could be found by such a name.

    Args:
      model: of keras.applications.
      inputs: its input tensor.

    Returns:
      The model itself if its layers with weights have all been given names;
      else a fresh one of the same layers, in which every layer without a name
      has its class's, and a number within the model.
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
    """`SeparableConv2D` -> `separable_conv2d`, as Keras names layers."""
    starts = r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])"
    return re.sub(starts, "_", name).lower()


def _end_points(trunk: keras.Model) -> dict[str, Any]:
    """The last of the tensors with most channels for every stride, and the end.

    Only so is it the whole of what a model with branches knows there.
    """
    strides = {id(trunk.inputs[0]): 1}
    end_points: dict[str, Any] = {}
    # Sums may be operations without a layer.
    for layer in trunk.operations:
        # `layer.output` of a block of layers is a tensor inside it.
        (node,) = layer._inbound_nodes
        known = [
            strides[id(tensor)]
            for tensor in node.input_tensors
            if id(tensor) in strides
        ]
        # What has been averaged over all places is no feature map.
        if not known or type(layer).__name__.startswith("Global"):
            continue
        (tensor,) = node.output_tensors
        stride = max(known) * _stride_of(layer)
        strides[id(tensor)] = stride
        # Nor is what was only padded for the next stride.
        padded = isinstance(layer, keras.layers.ZeroPadding2D)
        widest = end_points.get(f"stride{stride}", tensor)
        if tensor.shape[-1] >= widest.shape[-1] and not padded:
            end_points[f"stride{stride}"] = tensor
    end_points[f"stride{strides[id(trunk.output)]}"] = trunk.output
    wanted = [f"stride{stride}" for stride in STRIDES]
    return {name: end_points[name] for name in wanted if name in end_points}


def _stride_of(layer: keras.Operation) -> int:
    """Of a layer, or of all layers of a block such as ConvNeXt's."""
    if hasattr(layer, "layers"):
        return math.prod(map(_stride_of, layer.layers))
    strides = getattr(layer, "strides", 1)
    return strides if isinstance(strides, int) else strides[0]


def _with_batch_norm(
    trunk: keras.Model, inputs: Any, variant: str, decay: float
) -> keras.Model:
    """The same model; its batch norms trained fast, and as `variant` says."""

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
    """The same model; one cell more on every side where Keras pads two."""

    def pads_itself(config: dict) -> bool:
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
