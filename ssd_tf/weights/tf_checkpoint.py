"""TensorFlow 1's checkpoints, which store variables by name.

Format V1 is a single file, V2 an index with data files, as TF-Slim, the port
and every other TF1 program write them. Independent of networks.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from ssd_tf.command import UserError
from ssd_tf.weights.base import Tensors

EMA_SUFFIX = "/ExponentialMovingAverage"
# Endings of a V2 checkpoint's files behind its prefix.
_FILE_SUFFIX = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")
# Ending of every variable's name in checkpoints of TensorFlow 2.
_OBJECT_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def read(path: str | os.PathLike) -> Tensors:
    """Reads all arrays of a checkpoint in format V1 or V2.

    Args:
      path: a V1 file; the prefix of a V2 checkpoint, such as `model.ckpt-100`,
        or one of its files; or a directory, for the latest checkpoint that
        the file `checkpoint` in it names.

    Returns:
      All variables with their names, also those of the optimizer.

    Raises:
      UserError: the checkpoint is missing, damaged, or an object-based one of
        TensorFlow 2.
    """
    with _opened(path) as (prefix, names):
        reader = tf.train.load_checkpoint(prefix)
        # The reader returns numbers and strings as Python's.
        return Tensors({n: np.asarray(reader.get_tensor(n)) for n in names})


def variable_names(path: str | os.PathLike) -> list[str]:
    """Returns the names alone, sorted; see `read`."""
    with _opened(path) as (_, names):
        return names


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple[str, list[str]]]:
    """Yields prefix and names of a checkpoint; explains errors of reading."""
    try:
        prefix = _prefix(path)
        names = [name for name, _ in tf.train.list_variables(prefix)]
        if any(name.endswith(_OBJECT_SUFFIX) for name in names):
            raise UserError(
                f"{path}: is a checkpoint of TensorFlow 2, by objects and not "
                "by names; one of train_ssd.py's needs no import, give its "
                "train_dir as --checkpoint_path"
            )
        yield prefix, sorted(names)
    # TensorFlow raises an IndexError for a data file that was cut short.
    except (tf.errors.OpError, IndexError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: cannot be read as a TensorFlow checkpoint ({reason}); "
            "name an unpacked, whole one"
        ) from error


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


def is_part(path: str | os.PathLike) -> bool:
    """Returns True for a file of a V2 checkpoint, by its name."""
    return bool(_FILE_SUFFIX.search(str(path)))


def take_weights(
    tensors: Tensors,
    scope: str,
    ema: bool,
    rename: Callable[[str], str | None] = str,
) -> dict[str, np.ndarray]:
    """Takes the variables under a scope, and drops what serves training only.

    A report of unused arrays would otherwise hide a forgotten layer behind
    hundreds of optimizer slots.

    Args:
      tensors: arrays from `read`.
      scope: prefix of the names, such as `vgg_16/`.
      ema: take moving averages; as with
        `tf.train.ExponentialMovingAverage.variables_to_restore`, a variable
        without an average is taken itself.
      rename: maps a name behind the scope to the name in the result, or to
        None for a variable that is not to be taken.

    Raises:
      UserError: moving averages are requested, and no variable has one.
    """
    if ema and not any(name.endswith(EMA_SUFFIX) for name in tensors.arrays):
        raise UserError(
            "the checkpoint has no moving averages (no variable "
            f"*{EMA_SUFFIX}); import it without asking for them"
        )
    variables = {}
    for name in tensors.arrays:
        if _is_training_state(tensors, name):
            tensors.take(name)
        elif name.startswith(scope) and (ours := rename(name[len(scope) :])):
            average = name + EMA_SUFFIX
            last = tensors.take(name)
            averaged = ema and average in tensors
            variables[ours] = tensors.take(average) if averaged else last
    return variables


def _is_training_state(tensors: Tensors, name: str) -> bool:
    """Returns True for slots, moving averages and counters.

    Optimizers and moving averages keep an array behind the name of the
    variable that it belongs to (`conv6/weights/Adam_1`); their own are
    scalars (`beta1_power`, `global_step`).
    """
    return tensors.arrays[name].ndim == 0 or name.rpartition("/")[0] in tensors
