"""Reader of the three layouts in which Keras saves weights, all of them HDF5.

`.weights.h5` has one group per layer, named by its class and by how many of
that class came before (`layers/conv2d_3/vars`, keras/src/saving/saving_lib.py);
newer versions of Keras add the layer's name. `.keras` is a zip with such a
file. The `.h5` that keras.applications publishes has one group per layer, by
its name (keras/src/legacy/saving/legacy_h5_format.py). Arrays only are read:
neither models nor code in a file are built.
"""

import collections
import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Mapping

import h5py

from ssd_tf.command import UserError
from ssd_tf.weights.base import Tensors

_IN_ARCHIVE = "model.weights.h5"  # member of a `.keras`
# Raised by h5py and zipfile for damaged bytes: mostly a RuntimeError; a
# TypeError for a name that is no text.
_DAMAGED = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)


@dataclasses.dataclass
class KerasTensors(Tensors):
    """Arrays of a file, by `LAYER/VARIABLE` where it names its layers."""

    # Names of a layer's arrays, in their order, by layer.
    layers: Mapping[str, list[str]]
    model_name: str | None  # None where the file does not have it
    # Layers by their group in a `.weights.h5`, None elsewhere. A layer without
    # a name has its group's.
    groups: Mapping[str, str] | None = None


def read(path: str | os.PathLike) -> KerasTensors:
    """Reads all arrays of a `.weights.h5`, `.keras` or `.h5`.

    Raises:
      UserError: the file is missing, damaged or of another format.
    """
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file; give a path to one")
    content = path
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content = io.BytesIO(archive.read(_IN_ARCHIVE))
        with h5py.File(content, "r") as file:
            # A whole model has the weights beside its configuration.
            root = file.get("model_weights", file)
            if _strings(root, "layer_names"):
                return _read_by_name(file, root)
            if "layers" in file:
                return _read_by_place(file)
            raise ValueError("it has neither layer_names nor layers")
    except _DAMAGED as error:
        raise UserError(
            f"{path}: not a file that Keras has saved ({error}); give a "
            ".weights.h5, .keras or .h5"
        ) from error


def _read_by_name(file: h5py.File, root: h5py.Group) -> KerasTensors:
    """Reads the older layout: one group per layer."""
    arrays, layers = {}, collections.defaultdict(list)
    for layer in _strings(root, "layer_names"):
        for weight in _strings(root[layer], "weight_names"):
            # Keras 2 wrote `conv1/kernel:0` in the group `conv1`.
            short = weight.removesuffix(":0").removeprefix(f"{layer}/")
            arrays[f"{layer}/{short}"] = root[layer][weight][()]
            layers[layer].append(f"{layer}/{short}")
    settings = json.loads(file.attrs.get("model_config", "{}"))
    # An older Sequential has a list of layers here, and no name.
    config = settings.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    return KerasTensors(arrays, layers, name)


def _strings(group: h5py.Group, name: str) -> list[str]:
    """Returns a list attribute; beyond 64 KiB it is split in name0, name1..."""
    parts = [name] if name in group.attrs else []
    while f"{name}{len(parts)}" in group.attrs:
        parts.append(f"{name}{len(parts)}")
    values = [value for part in parts for value in group.attrs[part]]
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def _read_by_place(file: h5py.File) -> KerasTensors:
    """Reads Keras 3's layout: a place per layer, and perhaps its name."""
    nodes: dict[str, h5py.Group | h5py.Dataset] = {}
    file.visititems(nodes.__setitem__)  # does not follow links to other files
    arrays, layers, groups = {}, collections.defaultdict(list), {}
    # HDF5 sorts the paths as text, where 10 is before 2.
    for path in sorted(nodes, key=lambda path: (len(path), path)):
        if not isinstance(nodes[path], h5py.Dataset):
            continue
        group, _, index = path.rpartition("/")
        if group not in groups:
            name = nodes[path].parent.attrs.get("name", group)
            # Another layer of the same name may be elsewhere in the model.
            groups[group] = group if name in layers else name
        name = f"{groups[group]}/{index}"
        arrays[name] = nodes[path][()]
        layers[groups[group]].append(name)
    name = file["vars"].attrs.get("name") if "vars" in file else None
    return KerasTensors(arrays, layers, name, groups)
