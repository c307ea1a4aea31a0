"""The state of a training run: what it holds, saves, restores and resumes."""

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Container, Iterator
from typing import Any

import keras
import tensorflow as tf

from ssd_tf.command import UserError, say
from ssd_tf.config.run import Config
from ssd_tf.nets.averages import WeightAverage
from ssd_tf.nets.checkpoint import PREFIX
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.training import strategies

# Files of one checkpoint, finished or still being written; `again` marks a
# second copy that `training.validation` makes.
_OF_CHECKPOINT = re.compile(
    rf"(?P<name>{PREFIX}-(again-)?\d+)"
    r"(_temp.*|\.(index|data-\d+-of-\d+)(\.tempstate\d+)?)"
)


@dataclasses.dataclass(frozen=True)
class Run:
    """Settings, state and step function of a training run."""

    settings: Config
    train_dir: pathlib.Path
    net: SSDNet
    optimizer: keras.Optimizer
    average: WeightAverage | None
    step: tf.Variable  # the number of steps taken
    manager: tf.train.CheckpointManager
    strategy: tf.distribute.Strategy
    take_step: Callable[[Any], dict[str, tf.Tensor]]

    @property
    def is_chief(self) -> bool:
        """True in the one process that writes logs and validates."""
        return strategies.is_chief(self.strategy)


def make_manager(
    save_dir: str | os.PathLike,
    net: SSDNet,
    optimizer: keras.Optimizer,
    step: tf.Variable,
    max_to_keep: int,
    average: WeightAverage | None = None,
) -> tf.train.CheckpointManager:
    """Makes what saves weights, their average, optimizer and step of a run.

    The position in the data and the seeds of the augmentation follow from the
    step. The seeds of dropout, which change with every step, are saved here,
    because Keras does not save them.
    """
    weights = {id(weight) for weight in net.model.weights}
    seeds = [x.value for x in net.model.variables if id(x) not in weights]
    parts = {"model": net.model, "optimizer": optimizer, "step": step}
    parts["seeds"] = seeds
    if average:
        parts["average"] = average
    return tf.train.CheckpointManager(
        tf.train.Checkpoint(**parts),
        str(save_dir),
        max_to_keep=max_to_keep,
        checkpoint_name=PREFIX,
        step_counter=step,
    )


def restore(state: tf.train.Checkpoint, checkpoint: str) -> None:
    """Restores the weights, optimizer and step of a run.

    Raises:
      UserError: the checkpoint is of another net or another optimizer.
    """
    try:
        state.restore(checkpoint).expect_partial().assert_consumed()
    except (AssertionError, ValueError) as error:
        raise UserError(
            f"{checkpoint}: its state is not that of the net and the optimizer "
            "in config.json beside it; choose another --train_dir"
        ) from error


def save(manager: tf.train.CheckpointManager, step: int) -> None:
    """Saves a run at a step; a save that fails leaves nothing behind.

    Raises:
      OSError, tf.errors.OpError: no space, or no permission.
    """
    try:
        manager.save(checkpoint_number=step)
    except (OSError, tf.errors.OpError):
        remove_partial(manager.directory)
        raise


def remove_partial(train_dir: str | os.PathLike) -> None:
    """Removes the files of unfinished saves from a train_dir."""
    folder = pathlib.Path(train_dir)
    keep_only(folder, {path.stem for path in folder.glob("*.index")})


def keep_only(folder: pathlib.Path, names: Container[str]) -> None:
    """Removes the files of all checkpoints but the named ones.

    Other files, such as a user's copy of a checkpoint, stay.
    """
    for path in folder.glob(f"{PREFIX}-*"):
        match = _OF_CHECKPOINT.fullmatch(path.name)
        if not match or match["name"] in names:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def explained_writes(train_dir: str | os.PathLike) -> Iterator[None]:
    """Turns failures to write inside into one line.

    Raises:
      UserError: a file cannot be written.
    """
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise UserError(
            f"{train_dir}: cannot be written to: {reason}; nothing saved "
            "before is lost: make room, and the same command goes on from "
            "the last checkpoint"
        ) from error


def check_resumable(
    train_dir: str | os.PathLike,
    before: Config,
    settings: Config,
    confirmed: bool,
) -> None:
    """Checks that a run may continue with settings, and lists what changed.

    Args:
      train_dir: folder of the run, for the message.
      before: settings that the run was begun with.
      settings: settings to continue with; both with the params of built nets.
      confirmed: allow another recipe (`--confirm_changes`).

    Raises:
      UserError: the variables of net or optimizer would be others, or the
        recipe has changed and this is not confirmed.
    """
    for name, old, new in _changes(_state(before), _state(settings)):
        raise UserError(
            f"{train_dir}: was trained with {name} {old}, not {new}; choose "
            f"another --train_dir, and --checkpoint_path={train_dir} to start "
            "from its weights"
        )
    changes = _changes(_recipe(before), _recipe(settings))
    listed = ", ".join(f"{name} {old} -> {new}" for name, old, new in changes)
    if listed and not confirmed:
        raise UserError(
            f"{train_dir}: was begun with other settings: {listed}; go on with "
            "the new ones by --confirm_changes, or choose another --train_dir"
        )
    if listed:
        say(f"{train_dir}: goes on with other settings: {listed}")


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[tuple]:
    """Lists name, old and new value of the entries that differ."""
    return [(x, old[x], new[x]) for x in new if old[x] != new[x]]


def _state(settings: Config) -> dict[str, Any]:
    """Returns what the variables of net and optimizer depend on."""
    training = settings.training
    return {
        "class_names": settings.class_names,
        # The trained variables do not depend on the order.
        "trainable_scopes": tuple(sorted({*training.trainable_scopes})),
        "optimizer": training.optimizer,
        "an average of the weights (--ema_decay)": bool(training.ema_decay),
        "a loss scale (mixed_float16)": training.precision == "mixed_float16",
        **vars(settings.params),
    }


def _recipe(settings: Config) -> dict[str, Any]:
    """Returns the settings that may change, those of nested ones flat."""
    fields = {}
    for name, value in vars(settings.training).items():
        is_nested = dataclasses.is_dataclass(value)
        fields |= vars(value) if is_nested else {name: value}
    # Compared by `_state`, in any order.
    del fields["trainable_scopes"]
    fields["num_samples"] = settings.num_samples
    fields["validation_split"] = settings.validation_split
    return fields
