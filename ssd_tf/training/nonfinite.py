"""Stops training on a non-finite loss and saves the offending batch.

One step with such a loss spoils all weights. `ssd_tf.training.replay` examines
the saved batch.
"""

import math
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np

from ssd_tf.command import UserError, files

_GRADIENT_NORM = "gradient_norm"
# Below this the scaled gradients are smaller than the true ones.
_MIN_LOSS_SCALE = 1.0
# Errors of NumPy for a file that is no such archive, or is truncated.
_UNREADABLE = (
    EOFError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)
# Number of images in the message; the file names all of them.
_MAX_NAMED = 8


def all_finite(terms: Mapping[str, float]) -> bool:
    """Tells whether all terms of a step are finite.

    With a `loss_scale`, as in mixed_float16, gradients overflow now and then:
    the optimizer skips such a step and halves the scale. Only below a scale of
    1 a non-finite gradient counts, since it is non-finite without scaling too.

    Args:
      terms: terms by name, as a step returns them.
    """
    scaled = terms.get("loss_scale", 0.0) >= _MIN_LOSS_SCALE
    return all(
        math.isfinite(value)
        for name, value in terms.items()
        if not (scaled and name == _GRADIENT_NORM)
    )


def join(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Joins the parts of a batch that several replicas have.

    Args:
      parts: `image`, `boxes`, `labels`, `ignored` of each replica; each part
        has its own number of boxes, and is padded by label 0.
    """
    most = max(part["labels"].shape[1] for part in parts)

    def padded(key, values):
        missing = 0 if key == "image" else most - values.shape[1]
        width = [(0, 0), (0, missing)] + [(0, 0)] * (values.ndim - 2)
        return np.pad(values, width)

    return {
        key: np.concatenate([padded(key, part[key]) for part in parts])
        for key in parts[0]
    }


def stop(
    terms: Mapping[str, float],
    step: int,
    batch: Mapping[str, np.ndarray],
    source_ids: Sequence[str],
    train_dir: str | os.PathLike,
    worker: int | None = None,
) -> NoReturn:
    """Saves the batch in the train_dir and stops the run.

    Args:
      terms: terms of the step, not `all_finite`.
      step: number of the step, from 1.
      batch: `image`, `boxes`, `labels`, `ignored`, as they were trained on.
      source_ids: names of the images.
      train_dir: folder that receives `nonfinite_step_K.npz`.
      worker: number of this process among several, each with a part of the
        batch; the file is then `nonfinite_step_K_worker_I.npz`.

    Raises:
      UserError: always.
    """
    bad = ", ".join(f"{k} {v}" for k, v in terms.items() if not np.isfinite(v))
    good = ", ".join(f"{k} {v:.4g}" for k, v in terms.items() if np.isfinite(v))
    of_worker = "" if worker is None else f"_worker_{worker}"
    path = pathlib.Path(train_dir) / f"nonfinite_step_{step}{of_worker}.npz"
    more = len(source_ids) - _MAX_NAMED
    images = ", ".join(source_ids[:_MAX_NAMED])
    images += f" and {more} more" if more > 0 else ""
    raise UserError(
        f"the loss is not finite at step {step}: {bad} ({good or 'all terms'})"
        f"; images {images}; {_saved(path, batch, source_ids)}; "
        "nothing of the step is saved: lower --learning_rate or set "
        "--clip_gradient_norm"
    )


def _saved(path, batch, source_ids):
    """Saves the batch and returns the command that examines it.

    A full disk must not hide the first error.
    """
    try:
        dump(path, batch, source_ids)
    except OSError as error:
        return f"{path} could not be written ({error.strerror})"
    return (
        f"look into the batch: python -m ssd_tf.replay "
        f"--train_dir={path.parent} --batch={path}"
    )


def dump(
    path: str | os.PathLike,
    batch: Mapping[str, np.ndarray],
    source_ids: Sequence[str],
) -> None:
    """Writes a batch as arrays, without pickles.

    Raises:
      OSError: it cannot be written.
    """
    with files.replace_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **batch, source_id=np.array(source_ids, np.str_))


def load(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the batch that `dump` has written, with `source_id` unicode [B].

    Raises:
      UserError: the file is missing or is of another kind.
    """
    keys = {"image", "boxes", "labels", "ignored", "source_id"}
    try:
        # Opened here, because NumPy leaves a file open that it cannot read.
        with open(path, "rb") as file, np.load(file) as arrays:
            return {key: arrays[key] for key in keys}
    except FileNotFoundError:
        reason = "not found"
    except _UNREADABLE as error:
        reason = f"not such a file ({' '.join(str(error).split())})"
    raise UserError(
        f"{path}: {reason}; --batch wants a nonfinite_step_K.npz that a "
        "stopped run has left in its train_dir"
    )
