"""Weights that Keras saved: of keras.applications, and of `SSDNet.model`.

What such a file does not tell, such as how images are whitened, is for a
classifier what keras.applications says, for an `SSDNet` what the preset says.
"""

import dataclasses
import re

import keras
import numpy as np

from ssd_tf.command import UserError
from ssd_tf.config.net import SSDParams
from ssd_tf.config.presets import PRESETS
from ssd_tf.nets import applications
from ssd_tf.nets.layers import variable_name
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import keras_layout, vgg_dense
from ssd_tf.weights.imported import Imported
from ssd_tf.weights.keras_hdf5 import KerasTensors, read
from ssd_tf.weights.keras_layout import Layout

__all__ = ["convert", "from_model", "imagenet", "read"]

# Our trunks that are not models of keras.applications -> theirs.
_MODELS = {
    "vgg_16": "VGG16",
    "resnet_v1_50": "ResNet50",
    "resnet_v1_101": "ResNet101",
    "resnet_v1_152": "ResNet152",
}
_SIDE = 224  # pixels of the models' input; no variable depends on it
# VGG16's dense layers that become conv6 and conv7.
_DENSE = {"fc1": (7 * 7 * 512, 4096), "fc2": (4096, 4096)}
_FC6_SHAPE = (7, 7, 512, 4096)  # fc1's rows go by height, width, channel


def convert(tensors: KerasTensors, params: SSDParams) -> Imported:
    """An SSD that `SSDNet.model` saved, or a classifier's trunk.

    Args:
      tensors: from `read`.
      params: a preset.

    Returns:
      All variables of the SSD, with its number of classes; or those of the
      trunk, with keras.applications' whitening.

    Raises:
      UserError: the file has another net than `params`, or other anchors.
    """
    make = _detector if _is_detector(tensors, params) else _trunk
    imported = make(tensors, params)
    return dataclasses.replace(imported, unused=tensors.unused)


def from_model(model: keras.Model, params: SSDParams) -> Imported:
    """The same of a model in memory, see `convert`."""
    arrays = {variable_name(v): v.numpy() for v in model.weights}
    layers = keras_layout.of_model(model).layers
    tensors = KerasTensors(model.name, arrays, layers, model_name=model.name)
    return convert(tensors, params)


def imagenet(params: SSDParams) -> Imported:
    """The weights that keras.applications publishes for a preset's trunk.

    Keras downloads them to `~/.keras/models`, once.

    Raises:
      UserError: there are none, or they cannot be had.
    """
    _model(params)  # refuses a trunk that no weights can be put into
    top = params.trunk == "vgg_16"  # for its fc1 and fc2
    try:
        model = _model(params, weights="imagenet", include_top=top)
    # Keras raises a plain Exception for a download that fails.
    except Exception as error:
        raise UserError(
            f"{params.trunk}: its ImageNet weights cannot be had ({error}); "
            "fetch the file elsewhere and give --backbone_weights=FILE"
        ) from error
    return from_model(model, params)


def _model(params: SSDParams, **options) -> keras.Model:
    """keras.applications' own trunk, with fresh weights by default."""
    options = {"weights": None, "include_top": False, **options}
    if params.width_multiplier != 1.0:
        options["alpha"] = params.width_multiplier
    make = applications.model_function(_keras_name(params))
    model = make(input_shape=(_SIDE, _SIDE, 3), **options)
    _check_adapted(model, params)
    named = applications.with_stable_names(model, model.inputs[0])
    if named is not model:
        named.set_weights(model.get_weights())
    return named


def _check_adapted(model: keras.Model, params: SSDParams) -> None:
    """Refuses EfficientNet's first version.

    Its Normalization takes the statistics of ImageNet over when a file is
    loaded, not when its variables are set, and its published weights are for
    a model with one more layer.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            raise UserError(
                f"trunk {params.trunk}: its layer {layer.name} cannot be "
                "imported; take EfficientNetV2B0"
            )


def _keras_name(params: SSDParams) -> str:
    return _MODELS.get(params.trunk, params.trunk)


def _take(
    tensors: KerasTensors, layout: Layout, params: SSDParams
) -> dict[str, np.ndarray]:
    """All variables of a model, or none."""
    misfit = keras_layout.misfit(tensors, layout)
    if misfit:
        fitting = ", ".join(_fitting_presets(tensors.model_name))
        raise UserError(
            f"{tensors.source}: does not fit --model_name={params.model_name}, "
            f"whose trunk is Keras's {_keras_name(params)} x "
            f"{params.width_multiplier:g} ({misfit}); "
            + (
                f"it fits --model_name={fitting}"
                if fitting
                else "choose the --model_name whose trunk it is of"
            )
        )
    return {
        name: tensors.take(source).astype(np.float32, copy=False)
        for name, source in keras_layout.sources(tensors, layout).items()
    }


def _fitting_presets(model_name: str | None) -> list[str]:
    """Those whose trunk has a name such as `mobilenetv2_1.00_224`."""
    kind, *width = (model_name or "").lower().split("_")[:2]
    return [
        name
        for name, row in PRESETS.items()
        if _keras_name(row).lower() == kind
        and width in ([], [f"{row.width_multiplier:.2f}"])
    ]


def _is_detector(tensors: KerasTensors, params: SSDParams) -> bool:
    if tensors.layers:
        return any("_box.conv_loc" in layer for layer in tensors.layers)
    # Without names: the file's layers are all the net's. What a Dropout has
    # there is the state of its random numbers.
    layout = keras_layout.of_model(SSDNet(params).model)
    addresses = [a for a in tensors.addresses if a.startswith("layers/")]
    variables = {a for a in addresses if "/seed_generator/" not in a}
    return variables == set(layout.addresses.values())


def _detector(tensors: KerasTensors, params: SSDParams) -> Imported:
    # `SSDNet.model` has its preset's name; only older versions of Keras 3 do
    # not write it into a `.weights.h5`, and then anchors of the same number
    # for each cell cannot be told from each other.
    name = tensors.model_name
    if name in PRESETS and name != params.model_name:
        raise UserError(
            f"{tensors.source}: weights of {name}, which has other anchors or "
            f"another trunk than --model_name={params.model_name}; take "
            f"--model_name={name}"
        )
    layout = keras_layout.of_model(SSDNet(params).model)
    num_classes = _num_classes(tensors, layout, params)
    if num_classes != params.num_classes:
        params = dataclasses.replace(params, num_classes=num_classes)
        layout = keras_layout.of_model(SSDNet(params).model)
    variables = _take(tensors, layout, params)
    return Imported(variables, params, assumed=(_untold(tensors, params),))


def _untold(tensors: KerasTensors, params: SSDParams) -> str:
    """What of an `SSDNet` is in its train_dir alone."""
    name = params.model_name
    anchors = "" if tensors.model_name == name else "anchors, "
    mean, scale = (
        " ".join(f"{value:g}" for value in values)
        for values in (params.image_mean, params.image_scale)
    )
    return (
        f"the file does not tell {anchors}whitening, trunk_variant and "
        f"anchor_clip: taken as {name}'s (mean {mean}, scale {scale}, "
        f"{params.trunk_variant}, {params.anchor_clip}); where the net was "
        "trained otherwise, use its train_dir"
    )


def _num_classes(
    tensors: KerasTensors, layout: Layout, params: SSDParams
) -> int:
    """With the background, from the bias of the first layer's class head."""
    head = f"{params.feat_layers[0]}_box/conv_cls/"
    for name, source in keras_layout.sources(tensors, layout).items():
        if name.startswith(head) and name.endswith("/biases"):
            channels = tensors.arrays[source].size
            return max(channels // params.anchors_per_cell[0], 1)
    return params.num_classes


def _trunk(tensors: KerasTensors, params: SSDParams) -> Imported:
    layout = keras_layout.of_model(_model(params))
    if params.trunk == "vgg_16":
        whole = _with_dense(layout)
        if keras_layout.misfit(tensors, whole) is None:
            layout = whole
    variables = _take(tensors, layout, params)
    mean, scale, bgr = applications.whitening(_keras_name(params))
    if bgr:
        first = next(name for name in variables if name.endswith("/weights"))
        variables[first] = np.flip(variables[first], axis=2)
    if params.trunk in _MODELS:
        rename = _as_vgg if params.trunk == "vgg_16" else _as_resnet
        variables = rename(variables)
    params = dataclasses.replace(
        params,
        num_classes=1,
        image_mean=mean,
        image_scale=scale,
        trunk_variant="keras",
    )
    return Imported(variables, params, class_names=(), detector=False)


def _with_dense(layout: Layout) -> Layout:
    """VGG16's layout with fc1 and fc2 behind its convolutions."""
    layers, shapes = dict(layout.layers), dict(layout.shapes)
    addresses = dict(layout.addresses)
    for layer, group in zip(_DENSE, ("dense", "dense_1"), strict=True):
        layers[layer] = [f"{layer}/weights", f"{layer}/biases"]
        for index, name in enumerate(layers[layer]):
            shapes[name] = _DENSE[layer][index:]
            addresses[name] = f"layers/{group}/vars/{index}"
    return Layout(layers, shapes, addresses)


def _as_vgg(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`block1_conv2` -> `conv1/conv1_2`; conv6 and conv7 of fc1 and fc2."""
    dense = {n: a for n, a in variables.items() if n.startswith("fc")}
    renamed = {
        re.sub(r"block(\d)_conv(\d)", r"conv\1/conv\1_\2", name): array
        for name, array in variables.items()
        if name not in dense
    }
    if dense:
        renamed |= vgg_dense.reduce_fc(
            dense["fc1/weights"].reshape(_FC6_SHAPE),
            dense["fc1/biases"],
            dense["fc2/weights"],
            dense["fc2/biases"],
        )
    return renamed


def _as_resnet(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Under TF-Slim's names; a convolution's bias goes into its batch norm.

    What the norm subtracts is the mean less the bias: exactly the same.
    """
    renamed = {_in_resnet(name): array for name, array in variables.items()}
    for name in [name for name in renamed if name.endswith("/biases")]:
        mean = name.replace("/biases", "/BatchNorm/moving_mean")
        renamed[mean] = renamed[mean] - renamed.pop(name)
    return renamed


def _in_resnet(name: str) -> str:
    """`conv2_block1_0_bn/beta` -> `block1/unit_1/.../BatchNorm/beta`."""
    stage, unit, number, kind, variable = re.fullmatch(
        r"conv(\d)(?:_block(\d+)_(\d))?_(conv|bn)/(\w+)", name
    ).groups()
    scope = "conv1"
    if unit:
        conv = "shortcut" if number == "0" else f"conv{number}"
        scope = f"block{int(stage) - 1}/unit_{unit}/bottleneck_v1/{conv}"
    return f"{scope}{'/BatchNorm' if kind == 'bn' else ''}/{variable}"
