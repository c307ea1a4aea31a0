"""Optimizers: first steps by hand, and Keras's own where nothing is added."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.command.settings import choices
from ssd_tf.config.training import TrainParams
from ssd_tf.training import optimizers

RATE, GRADIENT, WEIGHT = 0.1, 0.5, 2.0
FIXED = TrainParams(
    learning_rate=RATE, learning_rate_decay_type="fixed", warmup_steps=0
)


def variables():
    """As layers name them; all start at `WEIGHT`."""
    names = ("kernel", "bias", "gamma", "beta")
    return [keras.Variable([WEIGHT], name=name) for name in names]


def built(weights, name, **changes):
    training = dataclasses.replace(FIXED, optimizer=name, **changes)
    optimizer = optimizers.make_optimizer(training, 1)
    optimizer.build(weights)
    return optimizer


def take_step(optimizer, weights, gradient=GRADIENT):
    gradients = [tf.constant([gradient])] * len(weights)
    optimizer.apply(gradients, weights)


def move(name, rate, weight=WEIGHT, g=GRADIENT):
    """The first step of an optimizer at the recipe's settings, by hand."""
    root = np.sqrt(0.1 + g**2)  # of accumulators that start at 0.1
    moves = {
        "sgd": rate * g,
        "momentum": rate * g,
        # The first means, without their bias, are gradient and square.
        "adam": rate * g / (abs(g) + 1e-7 / np.sqrt(1 - 0.999)),
        "rmsprop": rate * g / np.sqrt(0.1 * g**2 + 1e-7),
        "adagrad": rate * g / (root + 1e-7),
        "adadelta": rate * g * np.sqrt(1e-7 / (0.05 * g**2 + 1e-7)),
        "ftrl": weight
        + (g - (root - np.sqrt(0.1)) / rate * weight) / (root / rate),
    }
    return weight - moves["adam" if name == "adamw" else name]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", choices(TrainParams, "optimizer"))
def test_first_step_by_hand(name, compiled):
    weights = variables()
    optimizer = built(weights, name, bias_learning_rate_multiplier=2.0)
    step = functools.partial(take_step, optimizer, weights)
    (tf.function(step) if compiled else step)()
    plain = move(name, RATE)
    # Decoupled: off the weight, times the rate, and of the kernel alone.
    decay = WEIGHT * RATE * 5e-4 if name == "adamw" else 0.0
    expected = [plain - decay, move(name, 2 * RATE), plain, plain]
    # Some roundings of float32 in a row.
    np.testing.assert_allclose(
        [float(x.numpy()[0]) for x in weights], expected, rtol=1e-6
    )


def test_second_step_has_momentum():
    weights = variables()
    optimizer = built(
        weights, "momentum", momentum=0.5, bias_learning_rate_multiplier=2.0
    )
    take_step(optimizer, weights)
    take_step(optimizer, weights, gradient=1.0)
    # 0.1 * 0.5, then half of that and 0.1 * 1.
    kernel, bias, *_ = (float(x.numpy()[0]) for x in weights)
    assert kernel == pytest.approx(2 - 0.05 - 0.125, rel=1e-6)
    assert bias == pytest.approx(2 - 2 * (0.05 + 0.125), rel=1e-6)


def keras_own(name):
    """Keras's optimizer with the recipe's numbers, written out."""
    adam = {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.1}
    return {
        "sgd": lambda: keras.optimizers.SGD(RATE),
        "momentum": lambda: keras.optimizers.SGD(RATE, momentum=0.7),
        "adam": lambda: keras.optimizers.Adam(RATE, **adam),
        "adamw": lambda: keras.optimizers.AdamW(RATE, 0.05, **adam),
        "rmsprop": lambda: keras.optimizers.RMSprop(
            RATE, rho=0.6, momentum=0.5, epsilon=0.1
        ),
        "adagrad": lambda: keras.optimizers.Adagrad(RATE),
        "adadelta": lambda: keras.optimizers.Adadelta(
            RATE, rho=0.85, epsilon=0.1
        ),
        "ftrl": lambda: keras.optimizers.Ftrl(RATE),
    }[name]()


@pytest.mark.parametrize("name", choices(TrainParams, "optimizer"))
def test_without_additions_it_is_keras_bit_for_bit(name):
    ours, theirs = variables(), variables()
    optimizer = built(
        ours,
        name,
        bias_learning_rate_multiplier=1.0,
        momentum=0.7,
        adam_beta1=0.8,
        adam_beta2=0.9,
        rmsprop_decay=0.6,
        rmsprop_momentum=0.5,
        adadelta_rho=0.85,
        opt_epsilon=0.1,
        weight_decay=0.05,
    )
    own = keras_own(name)
    if name == "adamw":
        own.exclude_from_weight_decay(var_list=theirs[1:])
    own.build(theirs)
    for number in range(5):
        take_step(optimizer, ours, gradient=0.3 * number - 0.5)
        take_step(own, theirs, gradient=0.3 * number - 0.5)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine.numpy(), other.numpy())
    assert not np.array_equal(ours[0].numpy(), [WEIGHT])


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
@pytest.mark.parametrize("name", choices(TrainParams, "optimizer"))
def test_a_restored_optimizer_goes_on_bit_for_bit(name, precision, tmp_path):
    def state():
        weights = variables()
        # A rate that changes with every step.
        optimizer = built(weights, name, precision=precision, warmup_steps=10)
        parts = {x.name: x for x in weights}
        return (
            weights,
            optimizer,
            tf.train.Checkpoint(optimizer=optimizer, **parts),
        )

    weights, optimizer, checkpoint = state()
    take_step(optimizer, weights)
    path = checkpoint.save(str(tmp_path / "ckpt"))
    again, restored, other = state()
    other.restore(path).assert_consumed()
    for each, values in ((optimizer, weights), (restored, again)):
        take_step(each, values, gradient=-0.7)
        assert optimizers.current_rate(each) == pytest.approx(0.03, rel=1e-6)
    for one, two in zip(weights, again, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())


@pytest.mark.parametrize("name", choices(TrainParams, "optimizer"))
def test_every_optimizer_follows_the_schedule(name):
    training = TrainParams(optimizer=name, warmup_steps=4, learning_rate=1)
    optimizer = optimizers.make_optimizer(training, 1)
    weights = variables()
    optimizer.build(weights)
    take_step(optimizer, weights)
    assert optimizers.current_rate(optimizer) == 0.5  # of the second step
    assert float(weights[0].numpy()[0]) < WEIGHT


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("momentum", {"momentum": 0.5}, {"momentum": 0.5}),
        ("sgd", {"momentum": 0.5}, {"momentum": 0.0}),
        (
            "adam",
            {"adam_beta1": 0.5, "adam_beta2": 0.6, "opt_epsilon": 0.1},
            {"beta_1": 0.5, "beta_2": 0.6, "epsilon": 0.1},
        ),
        ("adamw", {"weight_decay": 0.3}, {"weight_decay": 0.3}),
        (
            "rmsprop",
            {"rmsprop_decay": 0.5, "rmsprop_momentum": 0.6, "opt_epsilon": 0.1},
            {"rho": 0.5, "momentum": 0.6, "epsilon": 0.1},
        ),
        (
            "adadelta",
            {"adadelta_rho": 0.5, "opt_epsilon": 0.1},
            {"rho": 0.5, "epsilon": 0.1},
        ),
    ],
)
def test_optimizers_take_their_settings(name, changes, expected):
    training = dataclasses.replace(TrainParams(optimizer=name), **changes)
    config = optimizers.make_optimizer(training, 1).get_config()
    assert {key: config[key] for key in expected} == expected


def test_unknown_optimizer_names_the_known_ones():
    with pytest.raises(ValueError, match="adadelta, .*received 'lion'"):
        optimizers.make_optimizer(TrainParams(optimizer="lion"), 1)


@pytest.mark.parametrize("name", choices(TrainParams, "optimizer"))
def test_weights_decay_in_the_loss_or_in_the_step(name):
    training = TrainParams(optimizer=name, weight_decay=0.25)
    in_step = optimizers.make_optimizer(training, 1).weight_decay
    assert (in_step, optimizers.l2_of(training)) == (
        (0.25, 0.0) if name == "adamw" else (None, 0.25)
    )


def test_loss_scale_is_1_but_in_float16():
    assert optimizers.loss_scale(built(variables(), "sgd")) == 1.0
    scaled = built(variables(), "sgd", precision="mixed_float16")
    # Keras's start of a dynamic scale.
    assert float(optimizers.loss_scale(scaled)) == 2.0**15


@pytest.mark.parametrize(
    "name",
    ["_get_variable_index", "_use_weight_decay", "_all_reduce_sum_gradients"],
)
def test_keras_still_has_the_private_methods_of_optimizers(name):
    """Fails on a Keras that no longer has a method that `_Recipe` relies on.

    Only `_Recipe` uses them; write it anew for such a version.
    """
    for cls in optimizers._CLASSES.values():
        keras_class = cls.__mro__[2]
        assert keras_class.__module__.startswith("keras.")
        assert callable(getattr(keras_class, name)), keras_class


def test_keras_still_calls_what_the_recipe_overrides(monkeypatch):
    """Fails on a Keras that calls other methods than `_Recipe` overrides."""
    names = {"_use_weight_decay", "_all_reduce_sum_gradients"}
    called = set()

    def spied(name):
        method = getattr(optimizers._Recipe, name)

        def spy(self, argument):
            called.add(name)
            return method(self, argument)

        return spy

    for name in names:
        monkeypatch.setattr(optimizers._Recipe, name, spied(name))
    weights = variables()
    take_step(built(weights, "adamw"), weights)
    assert called == names
