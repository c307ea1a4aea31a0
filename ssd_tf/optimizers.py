"""Optimizers by name and the weight decay; knows no loss and no data."""

import keras
import tensorflow as tf

from ssd_tf import schedules
from ssd_tf.recipe import TrainParams, check_choice


def make_optimizer(
    training: TrainParams, steps_per_epoch: float
) -> keras.Optimizer:
    """The optimizer that a recipe asks for.

    Raises:
      ValueError: unknown name.
    """
    rate = schedules.learning_rate(training, steps_per_epoch)
    epsilon = training.opt_epsilon
    makers = {
        "adadelta": lambda: keras.optimizers.Adadelta(
            rate, rho=training.adadelta_rho, epsilon=epsilon
        ),
        # The port's other constants of these two are Keras's defaults.
        "adagrad": lambda: keras.optimizers.Adagrad(rate),
        "ftrl": lambda: keras.optimizers.Ftrl(rate),
        "adam": lambda: keras.optimizers.Adam(
            rate,
            beta_1=training.adam_beta1,
            beta_2=training.adam_beta2,
            epsilon=epsilon,
        ),
        "momentum": lambda: keras.optimizers.SGD(
            rate, momentum=training.momentum
        ),
        "rmsprop": lambda: keras.optimizers.RMSprop(
            rate,
            rho=training.rmsprop_decay,
            momentum=training.rmsprop_momentum,
            epsilon=epsilon,
        ),
        "sgd": lambda: keras.optimizers.SGD(rate),
    }
    check_choice("optimizer", training.optimizer)
    return makers[training.optimizer]()


def weight_decay_loss(model: keras.Model, weight_decay: float) -> tf.Tensor:
    """Half the squared norm of all kernels, times `weight_decay`.

    Biases, batch norm and the L2 norm's gamma are left alone, as in the port.
    """
    norms = [
        tf.nn.l2_loss(variable)
        for variable in model.trainable_variables
        if variable.name.endswith("kernel")
    ]
    # A zero first: what is trained may have no kernel.
    return weight_decay * tf.add_n([tf.constant(0.0), *norms])
