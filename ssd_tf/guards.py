"""What stops a run whose loss is no number, and leaves the batch behind.

One step with such a loss makes all weights useless, and the run with them;
told late, nobody knows what it was. Knows no net; `ssd_tf.replay` looks at
what is left behind.
"""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np

from ssd_tf import files
from ssd_tf.command import UserError

_GRADIENT_NORM = "gradient_norm"
# So many images are named in the message; all of them are in the file.
_MAX_NAMED = 8


def all_finite(terms: Mapping[str, float], loss_scaling: bool = False) -> bool:
    """Whether all terms of a step are numbers.

    Args:
      terms: by name, as a step returns them.
      loss_scaling: the gradients overflow now and then, as they do in
        mixed_float16, and the optimizer leaves such a step out itself.
    """
    return all(
        math.isfinite(value)
        for name, value in terms.items()
        if not (loss_scaling and name == _GRADIENT_NORM)
    )


def stop(
    terms: Mapping[str, float],
    step: int,
    batch: Mapping[str, np.ndarray],
    source_ids: Sequence[str],
    train_dir: str | os.PathLike,
) -> NoReturn:
    """Leaves the batch in the train_dir and stops the run.

    Args:
      terms: of the step, not `all_finite`.
      step: from 1.
      batch: `image`, `boxes`, `labels`, `ignored`, as they were trained on.
      source_ids: of its images; of the global batch, where other processes
        hold the rest of it.
      train_dir: gets `nonfinite_step_K.npz`.

    Raises:
      UserError: always.
    """
    bad = ", ".join(f"{k} {v}" for k, v in terms.items() if not np.isfinite(v))
    good = ", ".join(f"{k} {v:.4g}" for k, v in terms.items() if np.isfinite(v))
    raise UserError(
        f"the loss is not finite at step {step}: {bad} ({good or 'all terms'})"
        f"; images {_named(source_ids)}; "
        f"{_left_behind(step, batch, source_ids, pathlib.Path(train_dir))}; "
        "nothing of the step is saved: lower --learning_rate or set "
        "--clip_gradient_norm"
    )


def _named(source_ids):
    named = ", ".join(source_ids[:_MAX_NAMED])
    more = len(source_ids) - _MAX_NAMED
    return f"{named} and {more} more" if more > 0 else named


def _left_behind(step, batch, source_ids, train_dir):
    """Writes the batch and says what to do with it.

    A full disk may be no reason to hide what went wrong first.
    """
    path = train_dir / f"nonfinite_step_{step}.npz"
    try:
        dump(path, batch, source_ids)
    except OSError as error:
        return f"{path} could not be written ({error.strerror})"
    return (
        f"look into the batch: python -m ssd_tf.replay "
        f"--train_dir={train_dir} --batch={path}"
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
    rows = len(batch["image"])
    if len(source_ids) != rows:
        source_ids = [f"image {row} of this process" for row in range(rows)]
    with files.replace_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **batch, source_id=np.array(source_ids, np.str_))


def load(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The batch that `dump` has written, with `source_id` unicode [B].

    Raises:
      UserError: there is no such file, or it is another one.
    """
    keys = {"image", "boxes", "labels", "ignored", "source_id"}
    try:
        with np.load(path) as arrays:
            return {key: arrays[key] for key in keys}
    except FileNotFoundError:
        reason = "not found"
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"not such a file ({' '.join(str(error).split())})"
    raise UserError(
        f"{path}: {reason}; --batch wants a nonfinite_step_K.npz that a "
        "stopped run has left in its train_dir"
    )
