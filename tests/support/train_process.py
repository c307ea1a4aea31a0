"""A training run in a process of its own, for the tests of processes.

    python train_process.py MODE NET DATASET_DIR TRAIN_DIR STEPS \\
        [CHECKPOINT_PATH SCOPE...]

MODE: one (device), mirrored (two logical CPUs of one process), or worker (as
TF_CONFIG says). NET: a key of NETS. CHECKPOINT_PATH: what to start from, to
train the scopes alone.
"""

import dataclasses
import sys

import tensorflow as tf

from ssd_tf import command
from ssd_tf.config import presets
from ssd_tf.config import run as config
from ssd_tf.config import training as recipe
from ssd_tf.config.net import SSDParams
from ssd_tf.config.training import StartParams
from ssd_tf.datasets import catalog, records
from ssd_tf.training import strategies, train
from ssd_tf.training.validation import Validation
from ssd_tf.weights import start as starts

BATCH_SIZE = 8
FIXTURE_STEPS = 4  # of conftest's `trained`


def small_vgg(num_classes: int) -> SSDParams:
    """SSD300-VGG's first three layers on 96 pixels.

    It has no batch norm, whose sums over many replicas are rounded otherwise
    than those over one: deep and untrained nets amplify that a lot.
    """
    layers = 3
    return dataclasses.replace(
        presets.SSD_300_VGG,
        img_shape=(96, 96),
        num_classes=num_classes,
        extra_blocks=presets.SSD_300_VGG.extra_blocks[:1],
        **{
            field: getattr(presets.SSD_300_VGG, field)[:layers]
            for field in (
                "feat_layers",
                "anchor_sizes",
                "anchor_ratios",
                "normalizations",
            )
        },
    )


def mobilenet(num_classes: int) -> SSDParams:
    """The net of the default run."""
    return dataclasses.replace(
        presets.SSD_128_MOBILENET_V2, num_classes=num_classes
    )


def with_dropout(num_classes: int) -> SSDParams:
    """`small_vgg`, with random numbers of its own in every step."""
    return dataclasses.replace(small_vgg(num_classes), dropout_rate=0.5)


NETS = {
    "vgg": small_vgg,
    "mobilenet": mobilenet,
    "dropout": with_dropout,
    "validated": mobilenet,
    "long": mobilenet,
}
# Nets that are evaluated on the way, and what their recipe has beside what all
# have; `dropout` for all the state there is.
RECIPES = {
    "dropout": {
        "ema_decay": 0.9,
        "optimizer": "adam",
        "eval_interval_steps": 6,
    },
    "validated": {"ema_decay": 0.9, "eval_interval_steps": 2},
    # With all that a run does beside its steps, but not at every step.
    "long": {
        "ema_decay": 0.9,
        "eval_interval_steps": 100,
        "save_interval_steps": 100,
        "log_every_n_steps": 10,
    },
}


def settings(net: str, class_names: list[str], steps: int) -> config.Config:
    """A small net and a recipe that logs every step."""
    training = recipe.TrainParams(
        batch_size=BATCH_SIZE,
        max_number_of_steps=steps,
        # Low: every step multiplies the rounding in which replicas differ.
        learning_rate=2e-4,
        warmup_steps=20,
        **{"log_every_n_steps": 1, "save_interval_steps": 4}
        | RECIPES.get(net, {}),
    )
    params = NETS[net](len(class_names) + 1)
    return config.Config(params, tuple(class_names), training)


def strategy_of(mode: str) -> tf.distribute.Strategy:
    """The strategy of a mode."""
    if mode == "mirrored":
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 2,
        )
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    return strategies.choose_strategy()


def validation_of(dataset_dir: str) -> Validation:
    """The test split."""
    return Validation(
        records.read(dataset_dir, "test"),
        records.count(dataset_dir, "test"),
        "test",
    )


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """No flags: the arguments are read by `main`."""


def main(options: NoOptions) -> None:
    """Trains."""
    del options
    mode, net, dataset_dir, train_dir, steps, *start = sys.argv[1:]
    strategy = strategy_of(mode)
    run = settings(net, catalog.class_names(dataset_dir), int(steps))
    weights = None
    if start:
        options = StartParams(checkpoint_path=start[0])
        training = dataclasses.replace(
            run.training, trainable_scopes=tuple(start[1:])
        )
        run = dataclasses.replace(run, training=training)
        run, weights = starts.initial_weights(run, train_dir, options)
    train.fit(
        run,
        train_dir,
        records.reader(dataset_dir, "train"),
        records.count(dataset_dir, "train"),
        strategy,
        weights,
        validation_of(dataset_dir) if net in RECIPES else None,
    )


if __name__ == "__main__":
    command.run(main, NoOptions, __doc__, sys.argv[:1])
