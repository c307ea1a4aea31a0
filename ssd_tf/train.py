"""The training loop: batch, step, log, save.

Runs on one device, on several GPUs of a host and on several hosts by the same
code: a plain loop over `strategy.run`. Boxes are encoded on the device, inside
the step. Knows no file formats, and flags only to name a remedy.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

import keras
import tensorflow as tf

from ssd_tf import (
    checkpoint,
    config,
    input_pipeline,
    optimizers,
    scopes,
    strategies,
    train_step,
    transfer,
)
from ssd_tf.command import UserError, progress, say
from ssd_tf.config import Config, SSDParams
from ssd_tf.metrics_log import MetricsLog, in_short
from ssd_tf.nets.layers import synchronize_batch_norm
from ssd_tf.nets.ssd import SSDNet


def train(
    settings: Config,
    train_dir: str | os.PathLike,
    records: tf.data.Dataset,
    num_samples: int,
    strategy: tf.distribute.Strategy | None = None,
    start: transfer.Start | None = None,
) -> SSDNet:
    """Trains until `max_number_of_steps`, going on where a run has ended.

    Args:
      settings: net, class names and recipe; written to the train_dir.
      train_dir: for checkpoints, config.json, metrics.jsonl and TensorBoard.
      records: parsed records, one pass over them.
      num_samples: images in that pass.
      strategy: where to run; one device by default.
      start: weights to start from, where the train_dir has none.

    Returns:
      The trained net.

    Raises:
      UserError: the train_dir is of another configuration, the start does
        not fit, or a loss is not finite.
    """
    training = settings.training
    strategy = strategy or tf.distribute.get_strategy()
    _check_batch_size(training.batch_size, strategy.num_replicas_in_sync)
    keras.utils.set_random_seed(training.seed)
    train_dir = pathlib.Path(train_dir)
    chief = strategies.is_chief(strategy)
    latest = tf.train.latest_checkpoint(str(train_dir))
    with strategy.scope():
        settings, net, report = _begin(
            settings, train_dir if latest else None, start
        )
        if report and chief:
            transfer.show(report)
        if strategy.num_replicas_in_sync > 1:
            synchronize_batch_norm(net.model)
        optimizer = optimizers.make_optimizer(
            training, num_samples / training.batch_size
        )
        optimizer.build(net.model.trainable_variables)
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    with _save_dir(train_dir, strategy, chief) as save_dir:
        manager = checkpoint.manager(
            save_dir, net, optimizer, step, training.max_to_keep
        )
        if latest:
            checkpoint.restore_run(manager.checkpoint, latest)
            say(f"going on from step {int(step)} of {train_dir}")
        if chief:
            config.save(settings, train_dir)
        batches = strategy.distribute_datasets_from_function(
            lambda context: _batches(records, settings, int(step), context)
        )
        take_step = train_step.make_train_step(
            net, optimizer, training, strategy
        )
        log = MetricsLog(train_dir, int(step)) if chief else None
        try:
            _loop(take_step, iter(batches), step, manager, training, log)
        except KeyboardInterrupt:
            # Ctrl-C loses nothing, where no other process waits for this one.
            if strategies.is_alone(strategy):
                manager.save(checkpoint_number=int(step))
            raise
    return net


def _begin(
    settings: Config,
    begun_dir: pathlib.Path | None,
    start: transfer.Start | None,
) -> tuple[Config, SSDNet, transfer.Report | None]:
    """The settings with what the net adds, the net, and what it starts from.

    `begun_dir` is the train_dir of a run that goes on, and needs no start.
    """
    net = _build(settings.params, settings.training.precision)
    settings = dataclasses.replace(settings, params=net.params)
    report = None
    if begun_dir:
        before = checkpoint.load_run_config(begun_dir)
        checkpoint.check_same_net(begun_dir, before, settings)
    elif start:
        report = transfer.apply(net, start)
    scopes.freeze_others(net, settings.training.trainable_scopes)
    return settings, net, report


def _build(params: SSDParams, precision: str) -> SSDNet:
    """The net; its size and its trunk may be of the user's choice."""
    try:
        return SSDNet(params, precision)
    except ValueError as error:
        height, width = params.img_shape
        # Keras says first where, then in bold what.
        *_, reason = re.sub(r"\x1b\[\d+m", "", str(error)).split("\n\n")[:2]
        raise UserError(
            f"{params.model_name} on {params.trunk} cannot be built for "
            f"{height}x{width} pixels: {reason}; choose another --image_size "
            "or --trunk"
        ) from error


def _batches(records, settings, first_step, context):
    """Batches of one replica, without what does not belong on a device.

    A run that goes on does not begin with the images it began with.
    """
    training = settings.training
    batches = input_pipeline.make_for_train(
        records,
        settings.params,
        training.batch_size,
        training.augmentation,
        training.ignore_difficult,
        training.seed + first_step,
        context,
    )
    return batches.map(
        lambda batch: {k: v for k, v in batch.items() if k != "source_id"}
    )


def _loop(take_step, batches, step, manager, training, log):
    """Step after step from `step` on; logs, and saves now and then."""
    last = training.max_number_of_steps
    first = int(step)
    with progress("training", last - first) as advance:
        text = ""
        for number in range(first + 1, last + 1):
            terms = take_step(next(batches))
            step.assign(number)
            saves = number % training.save_interval_steps == 0 or number == last
            if saves or number % training.log_every_n_steps == 0:
                values = _finite(terms, number)
                text = in_short(values)
                if log:
                    rate = float(manager.checkpoint.optimizer.learning_rate)
                    log.write(number, {**values, "learning_rate": rate})
            if saves:
                _check_weights(manager.checkpoint.model, number)
                manager.save(checkpoint_number=number)
            advance(units=training.batch_size, text=text)


def _finite(terms: dict[str, tf.Tensor], step: int) -> dict[str, float]:
    """The loss terms as numbers, checked before anything is saved."""
    values = {name: float(term) for name, term in terms.items()}
    if not all(math.isfinite(value) for value in values.values()):
        raise UserError(
            f"the loss is not finite at step {step}: {values}; nothing of it "
            "was saved. Lower --learning_rate, or look for bad boxes"
        )
    return values


def _check_weights(model: keras.Model, step: int) -> None:
    """The loss was that of the weights before the step; these are saved."""
    weights = tf.nest.flatten(model.trainable_variables)
    if not math.isfinite(float(tf.linalg.global_norm(weights))):
        raise UserError(
            f"the weights are not finite after step {step}, and were not "
            "saved; lower --learning_rate"
        )


def _check_batch_size(batch_size: int, replicas: int) -> None:
    if batch_size % replicas:
        raise UserError(
            f"--batch_size={batch_size}: not divisible by the {replicas} "
            "devices that share a batch"
        )


@contextlib.contextmanager
def _save_dir(
    train_dir: pathlib.Path, strategy: tf.distribute.Strategy, chief: bool
) -> Iterator[pathlib.Path]:
    """Where to save: every worker takes part, but only the chief's is kept."""
    if chief:
        yield train_dir
        return
    scratch = train_dir / f".worker-{strategy.cluster_resolver.task_id}"
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
