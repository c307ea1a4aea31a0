"""Which format a file has, and the module that reads it."""

import dataclasses
import importlib
import os
import pathlib
import zipfile
from types import ModuleType

from ssd_tf.command import UserError
from ssd_tf.config.net import SSDParams
from ssd_tf.weights.imported import Imported, Tensors

# Name -> module; imported when needed, for `--help` to need no TensorFlow.
_MODULES = {
    "caffe": "caffe",
    "keras": "keras_files",
    "port": "port",
    "slim": "slim",
    "torch": "pytorch",
}
FORMATS = tuple(_MODULES)
TF1_FORMATS = ("port", "slim")
# `--backbone_weights=imagenet`: what keras.applications publishes.
IMAGENET = "imagenet"

_HDF5 = b"\x89HDF\r\n\x1a\n"
_PICKLE = b"\x80"
# Last eight bytes of a TensorFlow table: a V1 checkpoint, or a V2 index.
_TABLE = bytes.fromhex("57fb808b247547db")


def read(path: str | os.PathLike, name: str | None = None) -> Tensors:
    """All arrays of a file by their names there.

    Args:
      path: a file, or a TensorFlow checkpoint's prefix or folder.
      name: one of `FORMATS`; by default what the file looks like.

    Raises:
      UserError: the file is missing or of no known format.
    """
    return _module(name or guess(path)).read(path)


def load(
    path: str | os.PathLike,
    params: SSDParams,
    name: str | None = None,
    ema: bool = False,
) -> Imported:
    """A file's weights in this package's terms.

    Args:
      path: see `read`, or `imagenet` for what keras.applications publishes.
      params: the net that they are wanted for.
      name: one of `FORMATS`; by default what the file looks like.
      ema: the moving averages of a TF1 checkpoint instead of its weights.

    Raises:
      UserError: they cannot be read, or are another net's.
    """
    if str(path) == IMAGENET:
        return _module("keras").imagenet(params)
    name = name or guess(path)
    tensors = read(path, name)
    options = {"ema": True} if ema else {}
    if ema and name not in TF1_FORMATS:
        raise UserError(f"{path}: --ema is for TF1 checkpoints, not {name}")
    try:
        imported = _module(name).convert(tensors, params, **options)
    except UserError as error:
        # Who converts sees arrays, and seldom knows the file.
        known = str(error).startswith(str(path))
        raise UserError(str(error) if known else f"{path}: {error}") from error
    return dataclasses.replace(imported, unused=tensors.unused)


def guess(path: str | os.PathLike) -> str:
    """The format of a file, by its first and last bytes.

    Raises:
      UserError: none is known.
    """
    path = pathlib.Path(path)
    if not path.is_file() or _tf_checkpoint().is_part(path):
        return _tf_format(path)
    with open(path, "rb") as file:
        start = file.read(len(_HDF5))
        file.seek(max(path.stat().st_size - len(_TABLE), 0))
        end = file.read()
    if start == _HDF5:
        return "keras"
    if zipfile.is_zipfile(path):
        return "keras" if _has_member(path, "config.json") else "torch"
    if end == _TABLE:
        return _tf_format(path)
    if path.suffix == ".caffemodel":
        return "caffe"
    if start.startswith(_PICKLE):
        return "torch"
    raise UserError(
        f"{path}: neither a TensorFlow checkpoint nor a .caffemodel, PyTorch "
        "or Keras file; say --format if it is one"
    )


def _has_member(path, name):
    with zipfile.ZipFile(path) as archive:
        return name in archive.namelist()


def _tf_format(path):
    """A detector's checkpoint has heads, a classifier's has not."""
    names = _tf_checkpoint().variable_names(path)
    return "port" if any("_box/" in name for name in names) else "slim"


def _tf_checkpoint() -> ModuleType:
    return importlib.import_module("ssd_tf.weights.tf_checkpoint")


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"ssd_tf.weights.{_MODULES[name]}")
