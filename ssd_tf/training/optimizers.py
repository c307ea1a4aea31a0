"""Optimizers, learning rate schedules and weight decay.

The optimizers are Keras's own with two changes, see `_Recipe`: a learning rate
for biases, and gradients that are already summed over the replicas.
"""

import keras
import tensorflow as tf

from ssd_tf.config import check_choice
from ssd_tf.config.training import TrainParams


class _Recipe:
    """Adds the recipe to an optimizer of Keras, as the first base class.

    Gradients are expected summed over the replicas, because a global norm can
    only be clipped after the sum; Keras clips before it.

    This is the one place in training with private API of Keras:
    `_get_variable_index`, `_use_weight_decay`, `_all_reduce_sum_gradients`.
    """

    bias_multiplier = 1.0

    def build(self, variables):
        """Notes which variables are biases and which are kernels, too."""
        names = [variable.name for variable in variables]
        self._is_bias = [name.endswith("bias") for name in names]
        self._is_kernel = [is_kernel(variable) for variable in variables]
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        """Updates a variable; the rate of a bias is multiplied."""
        if self._is_bias[self._get_variable_index(variable)]:
            # In the schedule's float32; a factor of 1 changes no bit.
            learning_rate = learning_rate * self.bias_multiplier
        super().update_step(gradient, variable, learning_rate)

    def _use_weight_decay(self, variable):
        return self._is_kernel[self._get_variable_index(variable)]

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars


def _of_recipe(name: str) -> type[keras.Optimizer]:
    """Derives a class from Keras's optimizer of that name and `_Recipe`."""
    return type(name, (_Recipe, getattr(keras.optimizers, name)), {})


# By the recipe's names; momentum is a setting of Keras's SGD.
_CLASSES = {
    "adadelta": _of_recipe("Adadelta"),
    "adagrad": _of_recipe("Adagrad"),
    "adam": _of_recipe("Adam"),
    "adamw": _of_recipe("AdamW"),
    "ftrl": _of_recipe("Ftrl"),
    "momentum": _of_recipe("SGD"),
    "rmsprop": _of_recipe("RMSprop"),
    "sgd": _of_recipe("SGD"),
}


def make_optimizer(
    training: TrainParams, steps_per_epoch: float
) -> keras.Optimizer:
    """Makes the optimizer of a recipe.

    Inside `strategy.run` it takes gradients that are summed over the
    replicas. In `mixed_float16` it is a `LossScaleOptimizer`, which takes
    those of the scaled loss, and skips a step if one is non-finite.

    Args:
      training: name, settings, schedule and precision.
      steps_per_epoch: length of an epoch, for the schedule `exponential`.

    Raises:
      ValueError: unknown name.
    """
    check_choice(TrainParams, "optimizer", training.optimizer)
    optimizer = _CLASSES[training.optimizer](
        learning_rate(training, steps_per_epoch),
        **_settings(training),
    )
    optimizer.bias_multiplier = training.bias_learning_rate_multiplier
    if training.precision == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def _settings(training: TrainParams) -> dict[str, float]:
    """Returns Keras's arguments; Adagrad and Ftrl have Keras's defaults."""
    epsilon = {"epsilon": training.opt_epsilon}
    adam = {
        "beta_1": training.adam_beta1,
        "beta_2": training.adam_beta2,
        **epsilon,
    }
    return {
        "adadelta": {"rho": training.adadelta_rho, **epsilon},
        "adagrad": {},
        "adam": adam,
        "adamw": {**adam, "weight_decay": training.weight_decay},
        "ftrl": {},
        "momentum": {"momentum": training.momentum},
        "rmsprop": {
            "rho": training.rmsprop_decay,
            "momentum": training.rmsprop_momentum,
            **epsilon,
        },
        "sgd": {},
    }[training.optimizer]


def current_rate(optimizer: keras.Optimizer) -> float:
    """Returns the next step's learning rate, without the factor of biases."""
    return float(optimizer.learning_rate)


def loss_scale(optimizer: keras.Optimizer) -> tf.Tensor | float:
    """Returns the factor of the next loss; 1 but for mixed_float16."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return tf.convert_to_tensor(optimizer.dynamic_scale)
    return 1.0


def is_kernel(variable: keras.Variable) -> bool:
    """Tells whether weight decay applies to a variable.

    It does not to biases, batch norm and the L2 norm's gamma, as in the port.
    """
    return variable.name.endswith("kernel")


def l2_of(training: TrainParams) -> float:
    """Returns the weight decay that is a term of the loss.

    AdamW subtracts it from the weights instead (Loshchilov and Hutter, 2019).
    """
    return 0.0 if training.optimizer == "adamw" else training.weight_decay


def weight_decay_loss(model: keras.Model, weight_decay: float) -> tf.Tensor:
    """Computes half the squared norm of trained kernels, times the decay."""
    norms = [
        tf.nn.l2_loss(variable)
        for variable in model.trainable_variables
        if weight_decay and is_kernel(variable)
    ]
    # A zero first: there may be no trained kernel. Not `add_n`, which adds in
    # the order in which memory happens to be free.
    return weight_decay * sum(norms, tf.constant(0.0))


@keras.saving.register_keras_serializable(package="ssd_tf")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to a schedule's rate over the first `steps` steps."""

    def __init__(
        self,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        steps: int,
    ):
        """Gives step k, from 0, `(k + 1) / steps` of the schedule's rate."""
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
    """Makes the learning rate schedule of a recipe, with its warm-up.

    Args:
      training: type, rate, factor, boundaries and length of the schedule.
      steps_per_epoch: length of an epoch, in which `exponential` counts.

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
