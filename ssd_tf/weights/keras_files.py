"""Weights that Keras saved: of keras.applications, and of `SSDNet.model`.

Settings that such a file lacks, such as how images are whitened, are for a
classifier those of keras.applications, for an `SSDNet` those of the preset.
"""

import dataclasses
import pathlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping

import keras
import numpy as np

from ssd_tf.command import UserError
from ssd_tf.config.net import SSDParams
from ssd_tf.config.presets import PRESETS
from ssd_tf.nets import applications
from ssd_tf.nets.layers import variable_name
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import base, vgg_dense
from ssd_tf.weights.base import Imported
from ssd_tf.weights.keras_hdf5 import KerasTensors, read

__all__ = ["convert", "from_model", "imagenet", "read"]

# Our trunks that are not models of keras.applications -> theirs.
_MODELS = {
    "vgg_16": "VGG16",
    "resnet_v1_50": "ResNet50",
    "resnet_v1_101": "ResNet101",
    "resnet_v1_152": "ResNet152",
}
_SIDE = 224  # pixels of the models' input; no variable depends on it
# VGG16's layers that become conv6 and conv7, by their groups in a .weights.h5.
_DENSE = {"layers/dense/vars": "fc1", "layers/dense_1/vars": "fc2"}
# fc1's rows go by height, width, channel.
_DENSE_SHAPES = [(7 * 7 * 512, 4096), *vgg_dense.SHAPES[1:]]

# Names of the arrays in a file, in order of the layer's weights, by layer.
ArraysByLayer = Mapping[str, list[str]]


def convert(tensors: KerasTensors, params: SSDParams) -> Imported:
    """Converts an SSD that `SSDNet.model` saved, or a classifier's trunk.

    Args:
      tensors: arrays from `read`.
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
    """Converts a model in memory, see `convert`."""
    arrays = {variable_name(v): v.numpy() for v in model.weights}
    layers = {
        layer.name: [variable_name(v) for v in layer.weights]
        for layer in model.layers
        if layer.weights
    }
    tensors = KerasTensors(arrays, layers, model.name)
    return convert(tensors, params)


def imagenet(params: SSDParams) -> Imported:
    """Imports the weights that keras.applications publishes for a trunk.

    Keras downloads them to `~/.keras/models`, once.

    Raises:
      UserError: there are none, or the download fails.
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
    """Builds keras.applications' own trunk, with fresh weights by default."""
    options = {"weights": None, "include_top": False, **options}
    if params.width_multiplier != 1.0:
        options["alpha"] = params.width_multiplier
    make = applications.model_function(_keras_name(params))
    model = make(input_shape=(_SIDE, _SIDE, 3), **options)
    for layer in model.layers:
        # EfficientNet's first version: its Normalization adopts the statistics
        # of ImageNet when a file is loaded, not when its variables are set,
        # and its published weights are for a model with one more layer.
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            raise UserError(
                f"trunk {params.trunk}: its layer {layer.name} cannot be "
                "imported; take EfficientNetV2B0"
            )
    named = applications.with_stable_names(model, model.inputs[0])
    if named is not model:
        named.set_weights(model.get_weights())
    return named


def _keras_name(params: SSDParams) -> str:
    return _MODELS.get(params.trunk, params.trunk)


def _by_layer(tensors: KerasTensors, model: keras.Model) -> ArraysByLayer:
    """Finds a model's layers in a file by name, else by place or order.

    Old files have no names of layers, or other names than today's; Keras then
    goes by their groups or by their order, too.
    """
    names = [layer.name for layer in _layers(tensors, model)]
    if tensors.layers.keys() >= set(names):
        return tensors.layers
    if tensors.groups is None:
        arrays = tensors.layers.values()
        return dict(zip([*names, *_DENSE.values()], arrays, strict=False))
    groups = {**_DENSE, **_groups(model)}
    return {
        layer: tensors.layers[tensors.groups[group]]
        for group, layer in groups.items()
        if group in tensors.groups
    }


def _layers(
    tensors: KerasTensors, model: keras.Model
) -> Iterator[keras.layers.Layer]:
    """Yields the layers with weights; a `.weights.h5` has the inner ones."""
    for layer in model.layers:
        if hasattr(layer, "layers") and tensors.groups is not None:
            yield from _layers(tensors, layer)
        elif layer.weights:
            yield layer


def _groups(model: keras.Model) -> dict[str, str]:
    """Saves a model, and returns its layers by the groups that Keras chose."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.weights.h5")
        model.save_weights(path)
        return read(path).groups


def _take(
    tensors: KerasTensors,
    model: keras.Model,
    by_layer: ArraysByLayer,
    params: SSDParams,
) -> dict[str, np.ndarray]:
    """Takes all variables of a model, by our names.

    Raises:
      UserError: the file lacks one or has it in another shape.
    """
    variables = {}
    for layer in _layers(tensors, model):
        names = by_layer.get(layer.name, [])
        shapes = [tensors.arrays[name].shape for name in names]
        expected = [tuple(variable.shape) for variable in layer.weights]
        if shapes != expected:
            raise base.misfit(
                "the file",
                params,
                _fitting_presets(tensors.model_name),
                f" (layer {layer.name} has shapes {shapes}, not {expected})",
            )
        for variable, name in zip(layer.weights, names, strict=True):
            variables[variable_name(variable)] = _array(tensors, name)
    return variables


def _array(tensors: KerasTensors, name: str) -> np.ndarray:
    return tensors.take(name).astype(np.float32, copy=False)


def _fitting_presets(model_name: str | None) -> list[str]:
    """Returns the presets on a trunk such as `mobilenetv2_1.00_224`."""
    kind, *width = (model_name or "").lower().split("_")[:2]
    return [
        name
        for name, row in PRESETS.items()
        if _keras_name(row).lower() == kind
        and width in ([], [f"{row.width_multiplier:.2f}"])
    ] or ["the preset whose trunk is that of the file"]


def _is_detector(tensors: KerasTensors, params: SSDParams) -> bool:
    if any("_box.conv_loc" in layer for layer in tensors.layers):
        return True
    groups = tensors.groups or {}
    if not groups or any(group != layer for group, layer in groups.items()):
        return False
    # Without names: all of the file's layers have to be those of the net.
    ours = _groups(SSDNet(params).model)
    return _with_weights(groups) == _with_weights(ours)


def _with_weights(groups: Iterable[str]) -> set[str]:
    """Returns the layers' groups; a Dropout's holds random numbers' state."""
    return {
        group
        for group in groups
        if group.startswith("layers/") and "/seed_generator/" not in group
    }


def _detector(tensors: KerasTensors, params: SSDParams) -> Imported:
    # `SSDNet.model` has its preset's name; only older versions of Keras 3 do
    # not write it into a `.weights.h5`, and then anchors of the same number
    # for each cell cannot be told from each other.
    name = tensors.model_name
    if name in PRESETS and name != params.model_name:
        raise UserError(
            f"weights of {name}, which has other anchors or another trunk than "
            f"--model_name={params.model_name}; take --model_name={name}"
        )
    model = SSDNet(params).model
    by_layer = _by_layer(tensors, model)
    num_classes = _num_classes(tensors, by_layer, params)
    if num_classes != params.num_classes:
        params = dataclasses.replace(params, num_classes=num_classes)
        model = SSDNet(params).model
    variables = _take(tensors, model, by_layer, params)
    return Imported(variables, params, assumed=(_assumed(tensors, params),))


def _assumed(tensors: KerasTensors, params: SSDParams) -> str:
    """Returns the remark on the settings that only a train_dir has."""
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
    tensors: KerasTensors, by_layer: ArraysByLayer, params: SSDParams
) -> int:
    """Returns the number of classes, from the first layer's class head."""
    head = f"{params.feat_layers[0]}_box.conv_cls"
    for layer in (head, f"{head}.pointwise"):
        if by_layer.get(layer):
            outputs = tensors.arrays[by_layer[layer][-1]].size  # the biases
            return base.num_classes(layer, outputs, params)
    return params.num_classes


def _trunk(tensors: KerasTensors, params: SSDParams) -> Imported:
    model = _model(params)
    by_layer = _by_layer(tensors, model)
    variables = _take(tensors, model, by_layer, params)
    mean, scale, bgr = applications.whitening(_keras_name(params))
    if bgr:
        first = next(name for name in variables if name.endswith("/weights"))
        variables[first] = np.flip(variables[first], axis=2)
    if params.trunk == "vgg_16":
        variables = {
            re.sub(r"block(\d)_conv(\d)", r"conv\1/conv\1_\2", name): array
            for name, array in variables.items()
        } | _reduced(tensors, by_layer)
    elif params.trunk in _MODELS:
        variables = _as_resnet(variables)
    return base.classifier(
        variables,
        params,
        image_mean=mean,
        image_scale=scale,
        trunk_variant="keras",
    )


def _reduced(
    tensors: KerasTensors, by_layer: ArraysByLayer
) -> dict[str, np.ndarray]:
    """Takes conv6 and conv7, if the file has VGG16's fc1 and fc2."""
    names = [n for layer in _DENSE.values() for n in by_layer.get(layer, [])]
    if [tensors.arrays[name].shape for name in names] != _DENSE_SHAPES:
        return {}
    fc1, *others = (_array(tensors, name) for name in names)
    return vgg_dense.reduce_fc(fc1.reshape(vgg_dense.SHAPES[0]), *others)


def _as_resnet(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames to TF-Slim's names, and puts biases into the batch norms.

    Batch norm subtracts the mean less the bias: exactly the same.
    """
    renamed = {_in_resnet(name): array for name, array in variables.items()}
    for name in [name for name in renamed if name.endswith("/biases")]:
        mean = name.replace("/biases", "/BatchNorm/moving_mean")
        renamed[mean] = renamed[mean] - renamed.pop(name)
    return renamed


def _in_resnet(name: str) -> str:
    """Turns `conv2_block1_0_bn/beta` to `block1/unit_1/.../BatchNorm/beta`."""
    stage, unit, number, kind, variable = re.fullmatch(
        r"conv(\d)(?:_block(\d+)_(\d))?_(conv|bn)/(\w+)", name
    ).groups()
    scope = "conv1"
    if unit:
        conv = "shortcut" if number == "0" else f"conv{number}"
        scope = f"block{int(stage) - 1}/unit_{unit}/bottleneck_v1/{conv}"
    return f"{scope}{'/BatchNorm' if kind == 'bn' else ''}/{variable}"
