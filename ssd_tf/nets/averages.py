"""Moving averages of a model's weights, for evaluation and export."""

import contextlib
import functools
from collections.abc import Iterator

import keras
import tensorflow as tf

from ssd_tf.nets.layers import variable_name


class MovingAverage(tf.Module):
    """Averages of all float weights, batch norm's statistics among them.

    Young averages forget faster, as those of TF1 with `num_updates`
    (`tf.train.ExponentialMovingAverage`): after n updates the decay is
    min(decay, (1 + n) / (10 + n)).
    """

    def __init__(self, model: keras.Model, decay: float):
        """Averages that start as the weights are.

        Args:
          model: whose weights; under a strategy the call is in its scope.
          decay: share of the average that an update keeps at last.
        """
        super().__init__()
        self._decay = decay
        self._strategy = tf.distribute.get_strategy()
        # A function hides the weights from checkpoints of this module.
        self._weights = functools.partial(_float_weights, model)
        self.updates = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.shadows = {
            name: tf.Variable(weight, trainable=False)
            for name, weight in self._weights().items()
        }

    def update(self) -> None:
        """Moves the averages towards the weights.

        Outside `strategy.run`: every device then averages its own copy, and
        nothing goes from one to another.
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
        """Inside, the model has the averages; afterwards its own weights."""
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
