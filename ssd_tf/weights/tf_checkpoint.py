"""TensorFlow 1's checkpoints, which go by the names of variables.

Format V1 is a single file, V2 an index with data files; what TF-Slim, the
port and every other TF1 program writes. Knows no network.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from ssd_tf.command import UserError
from ssd_tf.weights.imported import Tensors

EMA_SUFFIX = "/ExponentialMovingAverage"
# What a V2 checkpoint's files have behind its prefix.
_FILE_SUFFIX = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")
# How TensorFlow 2 ends the name of every variable.
_OBJECT_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def read(path: str | os.PathLike) -> Tensors:
    """All arrays of a checkpoint in format V1 or V2.

    Args:
      path: a V1 file; the prefix of a V2 checkpoint, such as `model.ckpt-100`,
        or one of its files; or a directory, for what the file `checkpoint` in
        it calls the latest.

    Returns:
      All variables with their names, also those of the optimizer.

    Raises:
      UserError: there is none, it cannot be read, or it is one of
        TensorFlow 2 that goes by objects.
    """
    with _readable(path):
        reader = tf.train.load_checkpoint(_prefix(path))
        names = sorted(reader.get_variable_to_shape_map())
        _check_by_name(path, names)
        return Tensors({name: _array(reader, name) for name in names})


def variable_names(path: str | os.PathLike) -> list[str]:
    """The names alone; see `read`."""
    with _readable(path):
        names = [name for name, _ in tf.train.list_variables(_prefix(path))]
        _check_by_name(path, names)
        return names


@contextlib.contextmanager
def _readable(path: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    # An IndexError is what TensorFlow makes of a data file cut short.
    except (tf.errors.OpError, IndexError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: cannot be read as a TensorFlow checkpoint ({reason}); "
            "name an unpacked, whole one"
        ) from error


def averaged(tensors: Tensors, name: str, ema: bool) -> np.ndarray:
    """Takes a variable, or its moving average where one is kept and wanted.

    As `tf.train.ExponentialMovingAverage.variables_to_restore` does, a
    variable without an average is taken itself.

    Args:
      tensors: from `read`.
      name: of the variable.
      ema: the average is wanted.

    Raises:
      KeyError: there is no such variable.
    """
    last, shadow = tensors.take(name), name + EMA_SUFFIX
    return tensors.take(shadow) if ema and shadow in tensors else last


def check_averages(tensors: Tensors) -> None:
    """Refuses a checkpoint without moving averages.

    Raises:
      UserError: no variable has one.
    """
    if not any(name.endswith(EMA_SUFFIX) for name in tensors.arrays):
        raise UserError(
            "the checkpoint has no moving averages (no variable "
            f"*{EMA_SUFFIX}); import it without asking for them"
        )


def is_training_state(tensors: Tensors, name: str) -> bool:
    """Whether a variable serves training only.

    Optimizers and moving averages keep an array behind the name of the
    variable that it belongs to (`conv6/weights/Adam_1`); their own are
    numbers (`beta1_power`, `global_step`).

    Args:
      tensors: from `read`.
      name: of the variable.
    """
    return tensors.arrays[name].ndim == 0 or name.rpartition("/")[0] in tensors


def take_training_state(tensors: Tensors) -> None:
    """Takes what serves training only.

    A report of what is left in a file would otherwise hide a forgotten layer
    behind hundreds of optimizer slots.
    """
    for name in tensors.arrays:
        if is_training_state(tensors, name):
            tensors.take(name)


def is_part(path: str | os.PathLike) -> bool:
    """Whether a file is one of those that a V2 checkpoint consists of."""
    return bool(_FILE_SUFFIX.search(str(path)))


def _prefix(path: str | os.PathLike) -> str:
    path = pathlib.Path(path)
    if path.is_dir():
        latest = tf.train.latest_checkpoint(str(path))
        if latest is None:
            raise UserError(
                f"{path}: no file `checkpoint` in it that names one beside "
                "it; name the checkpoint itself, such as model.ckpt-1000"
            )
        return latest
    prefix = _FILE_SUFFIX.sub("", str(path))
    if not (path.is_file() or pathlib.Path(f"{prefix}.index").is_file()):
        raise UserError(
            f"{path}: no such checkpoint; name a file, or a prefix such as "
            "model.ckpt-1000 with model.ckpt-1000.index beside it"
        )
    return prefix


def _check_by_name(path: str | os.PathLike, names: list[str]) -> None:
    if any(name.endswith(_OBJECT_SUFFIX) for name in names):
        raise UserError(
            f"{path}: is a checkpoint of TensorFlow 2, by objects and not by "
            "names; one of train_ssd.py's needs no import, give its "
            "train_dir as --checkpoint_path"
        )


def _array(reader, name: str) -> np.ndarray:
    # The reader hands out numbers and strings as Python's.
    return np.asarray(reader.get_tensor(name))
