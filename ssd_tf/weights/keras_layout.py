"""Which array of a Keras file is which variable of a model.

By the layers' names, else by their addresses, else by their order, as Keras
does it itself: some files were published when layers had other names.
"""

import collections
import dataclasses

import keras

from ssd_tf.nets.applications import snake_case
from ssd_tf.nets.layers import variable_name
from ssd_tf.weights.keras_hdf5 import KerasTensors


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a Keras model's variables, by our names, are in its files."""

    layers: dict[str, list[str]]  # of a layer, in their order, by layer
    shapes: dict[str, tuple[int, ...]]
    addresses: dict[str, str]  # in a `.weights.h5`


def of_model(model: keras.Model) -> Layout:
    """The layout that Keras gives a model of these layers."""
    layers = {
        layer.name: [variable_name(variable) for variable in layer.weights]
        for layer in model.layers
        if layer.weights
    }
    shapes = {variable_name(v): tuple(v.shape) for v in model.weights}
    return Layout(layers, shapes, _addresses(model))


def _addresses(model: keras.Model, prefix: str = "") -> dict[str, str]:
    """Where Keras's saving_lib.py puts each variable."""
    addresses, counts = {}, collections.Counter()
    for layer in model.layers:
        kind = snake_case(type(layer).__name__)
        number = f"_{counts[kind]}" if counts[kind] else ""
        counts[kind] += 1
        group = f"{prefix}layers/{kind}{number}"
        if hasattr(layer, "layers"):
            addresses |= _addresses(layer, f"{group}/")
            continue
        own: dict[str, keras.Variable] = {}
        layer.save_own_variables(own)
        for key, variable in own.items():
            addresses[variable_name(variable)] = f"{group}/vars/{key}"
    return addresses


def sources(tensors: KerasTensors, layout: Layout) -> dict[str, str]:
    """The file's names by a model's variables; some may be missing."""
    theirs = tensors.layers
    if not layout.layers.keys() <= theirs.keys():
        if tensors.addresses is not None:
            return {
                name: tensors.addresses[address]
                for name, address in layout.addresses.items()
                if address in tensors.addresses
            }
        theirs = dict(zip(layout.layers, theirs.values(), strict=False))
    return {
        name: source
        for layer, names in layout.layers.items()
        if len(names) == len(theirs.get(layer, ()))
        for name, source in zip(names, theirs[layer], strict=True)
    }


def misfit(tensors: KerasTensors, layout: Layout) -> str | None:
    """The first of a model's variables that the file lacks or has otherwise."""
    found = sources(tensors, layout)
    for name, shape in layout.shapes.items():
        if name not in found:
            return f"it lacks {name}"
        theirs = tensors.arrays[found[name]].shape
        if theirs != shape:
            return f"{name} is {theirs}, not {shape}"
    return None
