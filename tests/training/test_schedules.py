"""Learning rates by hand."""

import keras
import numpy as np
import pytest

from ssd_tf.command.settings import choices
from ssd_tf.config.training import TrainParams
from ssd_tf.training import optimizers


def rates(steps, steps_per_epoch=10, **settings):
    settings = {"warmup_steps": 0, **settings}
    schedule = optimizers.learning_rate(
        TrainParams(**settings), steps_per_epoch
    )
    return [float(schedule(step)) for step in steps]


def test_default_is_ssd_pascals():
    steps = [0, 79_999, 80_001, 99_999, 100_001, 119_999]
    expected = [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5]
    np.testing.assert_allclose(rates(steps), expected, rtol=1e-6)


def test_cosine():
    values = rates(
        [0, 50, 100, 150],
        learning_rate_decay_type="cosine",
        max_number_of_steps=100,
        learning_rate=0.4,
        end_learning_rate=0.1,
    )
    # Half way between both; the end is kept.
    np.testing.assert_allclose(values, [0.4, 0.25, 0.1, 0.1], rtol=1e-6)


def test_polynomial():
    values = rates(
        [0, 50, 100, 150],
        learning_rate_decay_type="polynomial",
        max_number_of_steps=100,
        learning_rate=0.4,
        end_learning_rate=0.1,
        polynomial_power=2,
    )
    # Half way: 0.1 + 0.3 / 2**2; the end is kept.
    np.testing.assert_allclose(values, [0.4, 0.175, 0.1, 0.1], rtol=1e-6)


def test_steps_scale_with_the_length_of_the_training():
    values = rates(
        [799, 801, 999, 1001],
        max_number_of_steps=1200,
        learning_rate_decay_factor=0.5,
        learning_rate=1.0,
    )
    np.testing.assert_allclose(values, [1, 0.5, 0.5, 0.25], rtol=1e-6)


def test_exponential_falls_every_so_many_epochs():
    values = rates(
        [0, 29, 30, 59, 60],
        learning_rate_decay_type="exponential",
        learning_rate=1,
        learning_rate_decay_factor=0.5,
        num_epochs_per_decay=3,
    )
    np.testing.assert_allclose(values, [1, 1, 0.5, 0.5, 0.25], rtol=1e-6)


def test_exponential_with_less_than_a_step_an_epoch():
    values = rates(
        [0, 1, 2],
        steps_per_epoch=0.1,
        learning_rate_decay_type="exponential",
        learning_rate=1,
    )
    np.testing.assert_allclose(values, [1, 0.1, 0.01], rtol=1e-6)


def test_fixed():
    values = rates([0, 10**6], learning_rate_decay_type="fixed")
    np.testing.assert_allclose(values, [1e-3, 1e-3], rtol=1e-6)


@pytest.mark.parametrize(
    "kind", choices(TrainParams, "learning_rate_decay_type")
)
def test_an_integer_rate_will_do(kind):
    settings = {"learning_rate_decay_type": kind}
    whole = rates([0, 90_000], learning_rate=1, **settings)
    assert whole == rates([0, 90_000], learning_rate=1.0, **settings)


@pytest.mark.parametrize(
    "kind", choices(TrainParams, "learning_rate_decay_type")
)
def test_warm_up_rises_to_the_full_rate(kind):
    settings = {"learning_rate_decay_type": kind}
    steps = [0, 3, 6, 7, 500]
    warm = np.array(rates(steps, warmup_steps=8, **settings))
    shares = [1 / 8, 4 / 8, 7 / 8, 1, 1]
    plain = np.array(rates(steps, **settings))
    np.testing.assert_allclose(warm, plain * shares, rtol=1e-6)
    assert (warm > 0).all()


def test_unknown_decay_names_the_known_ones():
    with pytest.raises(ValueError, match="step, cosine, .*received 'poly'"):
        rates([0], learning_rate_decay_type="poly")


def test_schedule_survives_its_configuration():
    training = TrainParams(warmup_steps=7, learning_rate=0.3)
    schedule = optimizers.learning_rate(training, 1)
    text = keras.saving.serialize_keras_object(schedule)
    again = keras.saving.deserialize_keras_object(text)
    for step in (0, 3, 90_000):
        assert float(again(step)) == float(schedule(step))
