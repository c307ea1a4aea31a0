"""A tiny net and steps of it, also in a process of its own.

    python step_process.py MODE OUTPUT.npz SETTING=VALUE...

MODE: one (device) or mirrored (two logical CPUs). The output has the terms of
every step, named STEP/TERM, and at last the rate, weights and averages. With
loss_scale=VALUE the first step has that scale.
"""

import dataclasses
import sys
import types

import keras
import numpy as np
import tensorflow as tf

from ssd_tf.config.training import TrainParams
from ssd_tf.multibox import anchors
from ssd_tf.nets import averages
from ssd_tf.nets.layers import (
    dtype_policy,
    synchronize_batch_norm,
    variable_name,
)
from ssd_tf.training import optimizers
from ssd_tf.training import step as train_step

SIZE, CELLS, ANCHORS, CLASSES = 16, 4, 2, 3
BATCH_SIZE, BOXES = 8, 3
STEPS = 3
RECIPE = TrainParams(
    batch_size=BATCH_SIZE,
    max_number_of_steps=100,
    learning_rate=0.05,
    learning_rate_decay_type="fixed",
    warmup_steps=0,
    ema_decay=0.9,
)


def tiny_net(
    precision: str = "float32", batch_norm: bool = False
) -> types.SimpleNamespace:
    """What a step needs of an `SSDNet`: some thousand weights, one layer."""
    with dtype_policy(precision):
        images = keras.Input((SIZE, SIZE, 3))
        # A bias before batch norm would have a gradient of rounding alone.
        net = keras.layers.Conv2D(
            8, 4, strides=4, use_bias=not batch_norm, name="conv"
        )(images)
        if batch_norm:
            net = keras.layers.BatchNormalization(name="norm")(net)
        net = keras.layers.Activation("relu")(net)
        outputs = {
            "logits": [_head(net, "conv_cls", CLASSES)],
            "localisations": [_head(net, "conv_loc", 4)],
        }
    layer = anchors.ssd_anchor_one_layer(
        (SIZE, SIZE), (CELLS, CELLS), (6, 9), (), SIZE / CELLS
    )
    params = types.SimpleNamespace(
        num_classes=CLASSES, prior_scaling=(0.1, 0.1, 0.2, 0.2)
    )
    return types.SimpleNamespace(
        model=keras.Model(images, outputs),
        flat_anchors=anchors.flatten_anchors([layer]),
        params=params,
    )


def _head(net, name, size):
    net = keras.layers.Conv2D(
        ANCHORS * size, 3, padding="same", dtype="float32", name=name
    )(net)
    shape = (CELLS, CELLS, ANCHORS, size)
    return keras.layers.Reshape(shape, dtype="float32")(net)


def batch(seed: int = 0) -> dict[str, np.ndarray]:
    """Noise with boxes; the last image has none."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.5, (BATCH_SIZE, BOXES, 2))
    size = rng.uniform(0.3, 0.5, (BATCH_SIZE, BOXES, 2))
    labels = rng.integers(1, CLASSES, (BATCH_SIZE, BOXES))
    labels[-1] = 0
    return {
        "image": rng.normal(0, 1, (BATCH_SIZE, SIZE, SIZE, 3)).astype("f"),
        "boxes": np.concatenate([corner, corner + size], -1).astype("f"),
        "labels": labels,
        "ignored": np.zeros((BATCH_SIZE, BOXES), bool),
    }


def strategy_of(mode: str) -> tf.distribute.Strategy:
    """The strategy of a mode."""
    if mode == "one":
        return tf.distribute.get_strategy()
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def distribute(strategy: tf.distribute.Strategy, values: dict) -> dict:
    """A batch as a strategy's data pipeline would give it."""
    replicas = strategy.num_replicas_in_sync

    def share(context):
        index = context.replica_id_in_sync_group
        return {
            key: tf.constant(np.split(value, replicas)[index])
            for key, value in values.items()
        }

    if replicas == 1:
        return {key: tf.constant(value) for key, value in values.items()}
    return strategy.experimental_distribute_values_from_function(share)


def make_step(
    training: TrainParams,
    strategy: tf.distribute.Strategy,
    batch_norm: bool = False,
) -> tuple:
    """The step of a net from seed 0: (step, net, optimizer, average)."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        net = tiny_net(training.precision, batch_norm)
        if strategy.num_replicas_in_sync > 1:
            synchronize_batch_norm(net.model)
        optimizer = optimizers.make_optimizer(training, 10)
        optimizer.build(net.model.trainable_variables)
        average = averages.WeightAverage(net.model, training.ema_decay)
    step = train_step.make_train_step(
        net, optimizer, training, strategy, average
    )
    return step, net, optimizer, average


def take_steps(step, strategy: tf.distribute.Strategy) -> list[dict]:
    """The terms of `STEPS` steps on as many batches."""
    return [
        {
            name: float(term)
            for name, term in step(distribute(strategy, batch(seed))).items()
        }
        for seed in range(STEPS)
    ]


def recipe_of(settings: dict[str, str]) -> TrainParams:
    """`RECIPE` with other settings, such as {"optimizer": "adam"}."""
    values = {
        name: type(getattr(RECIPE, name))(value)
        for name, value in settings.items()
    }
    return dataclasses.replace(RECIPE, **values)


def main() -> None:
    """Takes the steps of a net with batch norm."""
    mode, output, *settings = sys.argv[1:]
    settings = dict(setting.split("=") for setting in settings)
    scale = settings.pop("loss_scale", None)
    strategy = strategy_of(mode)
    step, net, optimizer, average = make_step(
        recipe_of(settings), strategy, batch_norm=True
    )
    if scale:
        optimizer.dynamic_scale.assign(float(scale))
    with train_step.sums_in_order():
        steps = take_steps(step, strategy)
    arrays = {
        f"{number}/{name}": value
        for number, terms in enumerate(steps)
        for name, value in terms.items()
    }
    arrays["rate"] = optimizers.current_rate(optimizer)
    for name, shadow in average.shadows.items():
        arrays[f"average/{name}"] = shadow.numpy()
    for weight in net.model.weights:
        arrays[f"weight/{variable_name(weight)}"] = weight.numpy()
    np.savez(output, **arrays)


if __name__ == "__main__":
    main()
