"""The learning rate as a function of the step; knows no optimiser."""

import keras
import tensorflow as tf

from ssd_tf.config import check_choice
from ssd_tf.config.training import TrainParams


@keras.saving.register_keras_serializable(package="ssd_tf")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to a schedule's rate over the first `steps` steps."""

    def __init__(
        self,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        steps: int,
    ):
        """The k-th step, from 0, has `(k + 1) / steps` of the full rate."""
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step):
        share = (tf.cast(step, tf.float32) + 1) / max(self.steps, 1)
        return tf.minimum(share, 1.0) * self.schedule(step)

    def get_config(self):
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "steps": self.steps}

    @classmethod
    def from_config(cls, config):
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["steps"])


def learning_rate(
    training: TrainParams, steps_per_epoch: float
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The schedule that a recipe asks for, with its warm-up.

    Args:
      training: type, rate, factor, boundaries and length.
      steps_per_epoch: for `exponential`, whose decay counts in epochs.

    Returns:
      A function of the step.

    Raises:
      ValueError: unknown `learning_rate_decay_type`.
    """
    return WarmUp(_decay(training, steps_per_epoch), training.warmup_steps)


def _decay(training, steps_per_epoch):
    schedules = keras.optimizers.schedules
    # An integer rate would make some of the schedules float64.
    rate, steps = float(training.learning_rate), training.max_number_of_steps
    factor = training.learning_rate_decay_factor
    kind = training.learning_rate_decay_type
    check_choice(TrainParams, "learning_rate_decay_type", kind)
    if kind == "step":
        boundaries = [int(share * steps) for share in training.decay_boundaries]
        rates = [rate * factor**k for k in range(len(boundaries) + 1)]
        return schedules.PiecewiseConstantDecay(boundaries, rates)
    if kind == "cosine":
        return schedules.CosineDecay(
            rate, steps, alpha=training.end_learning_rate / rate
        )
    if kind == "exponential":
        every = max(int(steps_per_epoch * training.num_epochs_per_decay), 1)
        return schedules.ExponentialDecay(rate, every, factor, staircase=True)
    if kind == "polynomial":
        return schedules.PolynomialDecay(
            rate,
            steps,
            end_learning_rate=float(training.end_learning_rate),
            power=training.polynomial_power,
        )
    return schedules.PiecewiseConstantDecay([0], [rate, rate])
