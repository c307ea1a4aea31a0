"""What a training run is made of."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

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
