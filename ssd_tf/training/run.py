"""What a training run is made of."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ssd_tf.command import UserError, say
from ssd_tf.config import run as config
from ssd_tf.config.run import Config
from ssd_tf.nets import averages
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.training import strategies


@dataclasses.dataclass(frozen=True)
class Run:
    """Its settings, its state and its step."""

    settings: Config
    train_dir: pathlib.Path
    net: SSDNet
    optimizer: keras.Optimizer
    average: averages.MovingAverage | None
    step: tf.Variable
    manager: tf.train.CheckpointManager
    strategy: tf.distribute.Strategy
    take_step: Callable[[Any], dict[str, tf.Tensor]]

    @property
    def is_chief(self) -> bool:
        """True on the one process that writes."""
        return strategies.is_chief(self.strategy)


def check_same_state(
    path: str | os.PathLike, before: config.Config, settings: config.Config
) -> None:
    """Refuses to go on with a run of another net or optimizer.

    Args:
      path: the train_dir, for the message.
      before: what the run was begun with.
      settings: what it is to go on with; both with the params of built nets.

    Raises:
      UserError: other anchors, whitening, classes..., named with both values.
    """
    old, new = (_needed(each) for each in (before, settings))
    for name in new:
        if old[name] != new[name]:
            raise UserError(
                f"{path}: was trained with {name} {old[name]}, not "
                f"{new[name]}; choose another --train_dir, and "
                f"--checkpoint_path={path} to start from its weights"
            )


def _needed(settings: config.Config) -> dict[str, Any]:
    """What the variables of a run depend on: the net's and the optimizer's."""
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


def check_changes(
    path: str | os.PathLike,
    before: config.Config,
    settings: config.Config,
    confirmed: bool,
) -> None:
    """Lists what a run is to go on with otherwise than it was begun.

    Args:
      path: the train_dir, for the message.
      before: what the run was begun with.
      settings: what it is to go on with.
      confirmed: whether it may.

    Raises:
      UserError: it may not.
    """
    old, new = (_changeable(each) for each in (before, settings))
    changes = [
        f"{name} {old[name]} -> {new[name]}"
        for name in new
        if old[name] != new[name]
    ]
    if not changes:
        return
    listed = ", ".join(changes)
    if not confirmed:
        raise UserError(
            f"{path}: was begun with other settings: {listed}; go on with the "
            "new ones by --confirm_changes, or choose another --train_dir"
        )
    say(f"{path}: goes on with other settings: {listed}")


def _changeable(settings: config.Config) -> dict[str, Any]:
    fields = _flat(settings.training)
    # In another order they are the same; see `check_same_state`.
    del fields["trainable_scopes"]
    fields["num_samples"] = settings.num_samples
    fields["validation_split"] = settings.validation_split
    return fields


def _flat(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass and of those in it."""
    fields = {}
    for name, value in vars(settings).items():
        nested = dataclasses.is_dataclass(value)
        fields |= _flat(value) if nested else {name: value}
    return fields
