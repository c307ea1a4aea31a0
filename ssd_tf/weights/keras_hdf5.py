"""The three layouts in which Keras saves weights, all of them HDF5.

`.weights.h5` has an address for each layer, its class and how many of that
class came before (`layers/conv2d_3/vars/0`, keras/src/saving/saving_lib.py);
newer versions of Keras add the layer's name. `.keras` is a zip with such a
file. The `.h5` that keras.applications publishes has a group for each layer
(keras/src/legacy/saving/legacy_h5_format.py). Knows no model.
"""

import collections
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping

import h5py
import numpy as np

from ssd_tf.command import UserError
from ssd_tf.weights.imported import Tensors

_IN_ARCHIVE = "model.weights.h5"  # of a `.keras`
# What h5py and zipfile raise, depending on the bytes that they meet: mostly a
# RuntimeError; a TypeError where a name is no text any more.
_DAMAGED = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)


class KerasTensors(Tensors):
    """A file's arrays, by `LAYER/VARIABLE` where it names its layers."""

    def __init__(
        self,
        source: str,
        arrays: Mapping[str, np.ndarray],
        layers: Mapping[str, list[str]],
        addresses: Mapping[str, str] | None = None,
        model_name: str | None = None,
    ):
        """Keeps what is needed to find a model's variables.

        Args:
          source: for messages, such as the file's path.
          arrays: by name.
          layers: names of a layer's arrays in their order, by layer.
          addresses: names by their path in a `.weights.h5`; None elsewhere.
          model_name: of the model that was saved, if the file tells.
        """
        super().__init__(arrays)
        self.source, self.model_name = source, model_name
        self.layers, self.addresses = dict(layers), addresses


def read(path: str | os.PathLike) -> KerasTensors:
    """All arrays of a `.weights.h5`, `.keras` or `.h5`.

    Raises:
      UserError: the file is missing or is none of them.
    """
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file; give a path to one")
    try:
        if not zipfile.is_zipfile(path):
            return _read_hdf5(str(path), path)
        with zipfile.ZipFile(path) as archive:
            return _read_hdf5(str(path), io.BytesIO(archive.read(_IN_ARCHIVE)))
    except _DAMAGED as error:
        raise UserError(
            f"{path}: not a file that Keras has saved ({error}); give a "
            ".weights.h5, .keras or .h5"
        ) from error


def _read_hdf5(source: str, contents: str | os.PathLike | io.BytesIO):
    """Either layout, told by what its root has."""
    with h5py.File(contents, "r") as file:
        # A whole model has the weights beside its configuration.
        root = file.get("model_weights", file)
        if _strings(root, "layer_names"):
            return _read_grouped(source, file, root)
        if "layers" in file:
            return _read_addressed(source, file)
    raise ValueError("it has neither layer_names nor layers")


def _read_grouped(
    source: str, file: h5py.File, root: h5py.Group
) -> KerasTensors:
    """The older layout: a group for each layer."""
    arrays, layers = {}, collections.defaultdict(list)
    for layer in _strings(root, "layer_names"):
        for weight in _strings(root[layer], "weight_names"):
            # Keras 2 wrote `conv1/kernel:0` in the group `conv1`.
            short = weight.removesuffix(":0").removeprefix(f"{layer}/")
            arrays[f"{layer}/{short}"] = root[layer][weight][()]
            layers[layer].append(f"{layer}/{short}")
    return KerasTensors(source, arrays, layers, model_name=_model_name(file))


def _model_name(file: h5py.File) -> str | None:
    """Of the whole model; older versions of Keras gave a Sequential none."""
    settings = json.loads(file.attrs.get("model_config", "{}"))
    # That of an older Sequential is the list of its layers.
    config = settings.get("config")
    return config.get("name") if isinstance(config, dict) else None


def _strings(group: h5py.Group, name: str) -> list[str]:
    """A list attribute; one beyond HDF5's 64 KiB is in parts name0, name1..."""
    parts = [name] if name in group.attrs else []
    while f"{name}{len(parts)}" in group.attrs:
        parts.append(f"{name}{len(parts)}")
    values = [value for part in parts for value in group.attrs[part]]
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def _read_addressed(source: str, file: h5py.File) -> KerasTensors:
    """Keras 3's layout: an address for each layer, and perhaps its name."""
    arrays, layers, addresses = {}, collections.defaultdict(list), {}
    for address, dataset in _datasets(file):
        layer = dataset.parent.attrs.get("name")
        name = f"{layer}/{address.rsplit('/', 1)[1]}" if layer else address
        if name in arrays:  # a layer of that name elsewhere in the model
            layer, name = None, address
        arrays[name], addresses[address] = dataset[()], name
        if layer:
            layers[layer].append(name)
    model_name = file["vars"].attrs.get("name") if "vars" in file else None
    return KerasTensors(source, arrays, layers, addresses, model_name)


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Paths and arrays, those of a layer in their order.

    HDF5 has them sorted as text, where 10 is before 2. Links to other files
    are not followed.
    """
    found: dict[str, h5py.Group | h5py.Dataset] = {}
    file.visititems(found.__setitem__)
    for path in sorted(found, key=lambda path: (len(path), path)):
        if isinstance(found[path], h5py.Dataset):
            yield path, found[path]
