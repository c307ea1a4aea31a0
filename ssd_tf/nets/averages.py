"""Moving averages of a model's weights, for evaluation and export."""

import contextlib
import functools
from collections.abc import Iterator

import keras
import tensorflow as tf

from ssd_tf.nets.layers import variable_name


class WeightAverage(tf.Module):
    """Exponential moving average of all float weights.

    Batch norm's statistics are averaged as well. The decay after n updates is
    min(decay, (1 + n) / (10 + n)), that of `tf.train.ExponentialMovingAverage`
    with `num_updates`: an average over few steps forgets its start faster.
    """

    def __init__(self, model: keras.Model, decay: float):
        """Starts the averages at the current weights.

        Under a distribution strategy call it within the strategy's scope.

        Args:
          model: model whose weights are averaged.
          decay: largest share of the average that an update keeps.
        """
        super().__init__()
        self._decay = decay
        self._strategy = tf.distribute.get_strategy()
        # A checkpoint saves every variable that an attribute of a tf.Module
        # holds, and so not the weights behind a function.
        self._weights = functools.partial(_float_weights, model)
        self.updates = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.shadows = {
            name: tf.Variable(weight, trainable=False)
            for name, weight in self._weights().items()
        }

    def update(self) -> None:
        """Moves the averages towards the weights.

        Call it outside `strategy.run`: each replica then updates its own copy
        without communication.
        """
        number = tf.cast(self.updates, tf.float32)
        rate = 1 - tf.minimum(self._decay, (1 + number) / (10 + number))
        for name, weight in self._weights().items():
            self._strategy.extended.update(
                self.shadows[name], _move, args=(weight, rate)
            )
        self.updates.assign_add(1)

    def copy_to_model(self) -> None:
        """Overwrites the weights with their averages."""
        for name, weight in self._weights().items():
            weight.assign(self.shadows[name])

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Gives the model the averages inside, and its own weights after."""
        own = {name: tf.identity(x) for name, x in self._weights().items()}
        try:
            self.copy_to_model()
            yield
        finally:
            for name, weight in self._weights().items():
                weight.assign(own[name])


def _float_weights(model: keras.Model) -> dict[str, tf.Variable]:
    return {
        variable_name(weight): weight.value
        for weight in model.weights
        if tf.as_dtype(weight.dtype).is_floating
    }


def _move(shadow: tf.Variable, weight: tf.Variable, rate: tf.Tensor) -> None:
    shadow.assign_sub((shadow - weight) * rate)
