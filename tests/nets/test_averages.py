"""Moving averages of weights, by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.nets.averages import WeightAverage


def small_model():
    """With batch norm, and a dropout, whose seed is no float."""
    inputs = keras.Input((2,))
    net = keras.layers.Dense(2, name="dense")(inputs)
    net = keras.layers.BatchNormalization(name="norm")(net)
    return keras.Model(inputs, keras.layers.Dropout(0.5)(net))


def fill(model, value):
    for weight in model.weights:
        weight.assign(tf.fill(weight.shape, value))


def values(model):
    return [weight.numpy() for weight in model.weights]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        # Decays 1/10, 2/11, 3/12: 0.9 * 10; then to 20, then to 40.
        (0.99, [9.0, 9 + 11 * 9 / 11, 18 + 22 * 9 / 12]),
        # Decays 1/10, 0.15, 0.15.
        (0.15, [9.0, 9 + 11 * 0.85, 18.35 + 21.65 * 0.85]),
    ],
)
def test_three_updates_by_hand(decay, expected, compiled):
    model = small_model()
    fill(model, 0.0)
    average = WeightAverage(model, decay)
    update = tf.function(average.update) if compiled else average.update
    for target, result in zip([10.0, 20.0, 40.0], expected, strict=True):
        fill(model, target)
        update()
        for shadow in average.shadows.values():
            np.testing.assert_allclose(shadow, result, rtol=1e-6)
    assert int(average.updates) == 3


def test_batch_norms_statistics_are_averaged_and_seeds_are_not():
    average = WeightAverage(small_model(), 0.9)
    assert sorted(average.shadows) == [
        "dense/biases",
        "dense/weights",
        "norm/beta",
        "norm/gamma",
        "norm/moving_mean",
        "norm/moving_variance",
    ]


def test_swapped_in_and_back_bit_for_bit():
    model = small_model()
    average = WeightAverage(model, 0.9)
    start = values(model)
    fill(model, 1 / 3)
    own = values(model)
    with average.swapped_in():
        for now, before in zip(values(model), start, strict=True):
            np.testing.assert_array_equal(now, before)
    for now, before in zip(values(model), own, strict=True):
        np.testing.assert_array_equal(now, before)
    # The averages have not moved either.
    for shadow, before in zip(average.shadows.values(), start, strict=True):
        np.testing.assert_array_equal(shadow, before)


def test_weights_come_back_after_an_error():
    model = small_model()
    average = WeightAverage(model, 0.9)
    fill(model, 7.0)
    with pytest.raises(KeyboardInterrupt), average.swapped_in():
        raise KeyboardInterrupt
    for weight in model.weights:
        np.testing.assert_array_equal(weight, 7.0)


def test_a_checkpoint_holds_averages_under_their_names(tmp_path):
    model = small_model()
    average = WeightAverage(model, 0.9)
    fill(model, 5.0)
    average.update()
    # 0.9 of the way from 0 to 5.
    saved = tf.train.Checkpoint(average=average)
    path = saved.save(str(tmp_path / "ckpt"))
    names = {
        name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
        for name, _ in tf.train.list_variables(path)
        if name.startswith("average/")
    }
    # Nothing but them: the weights are the model's to save.
    assert names == {
        "average/updates",
        *(
            f"average/shadows/{name.replace('/', '.S')}"
            for name in average.shadows
        ),
    }
    other = small_model()
    restored = WeightAverage(other, 0.0)
    tf.train.Checkpoint(average=restored).restore(path).assert_consumed()
    restored.copy_to_model()
    assert int(restored.updates) == 1
    for weight, shadow in zip(
        other.weights, average.shadows.values(), strict=True
    ):
        np.testing.assert_array_equal(weight, shadow)
    np.testing.assert_allclose(other.get_layer("dense").bias, 4.5, rtol=1e-6)
