"""Detection of a file's format, and the module that reads it."""

import dataclasses
import importlib
import os
import pathlib
import zipfile
from types import ModuleType

from ssd_tf.command import UserError
from ssd_tf.config.net import SSDParams
from ssd_tf.weights.base import Imported, Tensors

# Name -> module; imported on use, so that `--help` needs no TensorFlow.
_MODULES = {
    "caffe": "caffe",
    "keras": "keras_files",
    "port": "port",
    "slim": "slim",
    "torch": "pytorch",
}
FORMATS = tuple(_MODULES)
TF1_FORMATS = ("port", "slim")
# Value of `--backbone_weights` for the weights of keras.applications.
IMAGENET = "imagenet"

_HDF5 = b"\x89HDF\r\n\x1a\n"
_PICKLE = b"\x80"
# Last eight bytes of a TensorFlow table: a V1 checkpoint, or a V2 index.
_TABLE = bytes.fromhex("57fb808b247547db")


def read(path: str | os.PathLike, name: str | None = None) -> Tensors:
    """Reads all arrays of a file by their names there.

    Args:
      path: a file, or a TensorFlow checkpoint's prefix or folder.
      name: one of `FORMATS`; by default guessed from the file's bytes.

    Raises:
      UserError: the file is missing, damaged or of an unknown format.
    """
    return _module(_MODULES[name or guess(path)]).read(path)


def load(
    path: str | os.PathLike,
    params: SSDParams,
    name: str | None = None,
    ema: bool = False,
) -> Imported:
    """Reads a file's weights in this package's names and layouts.

    Args:
      path: see `read`, or `imagenet` for the weights that keras.applications
        publishes.
      params: requested net.
      name: one of `FORMATS`; by default guessed from the file's bytes.
      ema: take the moving averages of a TF1 checkpoint.

    Raises:
      UserError: the weights cannot be read, or are another net's.
    """
    if str(path) == IMAGENET:
        return _module("keras_files").imagenet(params)
    name = name or guess(path)
    tensors = read(path, name)
    if ema and name not in TF1_FORMATS:
        raise UserError(f"{path}: --ema is for TF1 checkpoints, not {name}")
    options = {"ema": True} if ema else {}
    try:
        imported = _module(_MODULES[name]).convert(tensors, params, **options)
    except UserError as error:
        # Most converters receive arrays without the file's name.
        known = str(error).startswith(str(path))
        raise UserError(str(error) if known else f"{path}: {error}") from error
    return dataclasses.replace(imported, unused=tensors.unused)


def guess(path: str | os.PathLike) -> str:
    """Returns the format of a file, by its first and last bytes.

    Raises:
      UserError: the file is missing or of an unknown format.
    """
    path = pathlib.Path(path)
    if not path.is_file() or _module("tf_checkpoint").is_part(path):
        return _tf_format(path)
    with open(path, "rb") as file:
        start = file.read(len(_HDF5))
        file.seek(max(path.stat().st_size - len(_TABLE), 0))
        end = file.read()
    if start == _HDF5:
        return "keras"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return "keras" if "config.json" in archive.namelist() else "torch"
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


def _tf_format(path: str | os.PathLike) -> str:
    """Tells a detector's checkpoint, which has heads, from a classifier's."""
    names = _module("tf_checkpoint").variable_names(path)
    return "port" if any("_box/" in name for name in names) else "slim"


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"ssd_tf.weights.{name}")
