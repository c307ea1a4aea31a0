"""Trains a net: on one device, several GPUs of a host, or several hosts.

`train` opens a data set and calls `fit`, which builds or restores the run;
the loop itself is `ssd_tf.training.loop`.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from ssd_tf.command import UserError, say
from ssd_tf.command.settings import build
from ssd_tf.config import run as config
from ssd_tf.config.net import SSDParams
from ssd_tf.config.run import Config
from ssd_tf.config.training import TrainOptions, TrainParams
from ssd_tf.datasets import catalog, record_check, records
from ssd_tf.detect.detectors import Detector, load_detector
from ssd_tf.input_pipeline import batches
from ssd_tf.nets import applications, averages, checkpoint, scopes
from ssd_tf.nets.layers import synchronize_batch_norm
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.training import loop, optimizers, overfit, run_lock, strategies
from ssd_tf.training import run as training_run
from ssd_tf.training import step as train_step
from ssd_tf.training.feed import TrainingBatches
from ssd_tf.training.options import check_used, remarks
from ssd_tf.training.run import Run
from ssd_tf.training.validation import Validation, Validator
from ssd_tf.weights import base, transfer
from ssd_tf.weights import start as starts


def train(
    dataset_dir: str | os.PathLike,
    train_dir: str | os.PathLike,
    **settings: Any,
) -> Detector | None:
    """Trains a net on a converted data set.

    The same call continues from the last checkpoint of `train_dir`.

    Args:
      dataset_dir: folder that `ssd_tf.convert` has written.
      train_dir: folder for checkpoints, config.json and logs.
      **settings: settings by the names of train_ssd.py's flags, such as
        `model_name="ssd_300_mobilenet_v2"`, `batch_size=8`.

    Returns:
      The trained detector; None with `overfit_batch`, which saves nothing.

    Raises:
      UserError: a setting is invalid, the data cannot be trained on, or see
        `fit`.
    """
    values = {"dataset_dir": dataset_dir, "train_dir": train_dir, **settings}
    options = build(TrainOptions, values)
    run(options)
    return None if options.run.overfit_batch else load_detector(train_dir)


def run(options: TrainOptions) -> None:
    """Trains with the options of train_ssd.py; see `train`."""
    # Refuse options without effect, and name those that are left out.
    check_used(options)
    for line in remarks(options):
        say(line)
    # The net is a preset with the classes of the data, on its trunk or another.
    names = tuple(catalog.class_names(options.dataset_dir))
    params = dataclasses.replace(options.net.params, num_classes=len(names) + 1)
    if options.net.trunk:
        params = applications.with_trunk(params, options.net.trunk)
    settings = Config(params, names, options.training)
    # Train, or check only that the net can overfit a batch.
    splits = options.dataset_split_name, options.validation_split_name
    with records.explained_errors(options.dataset_dir, *splits):
        if options.run.overfit_batch:
            read, number = _open_split(options, splits[0], names)
            overfit.overfit(settings, read(None), number)
        else:
            _train(options, settings)


def _train(options: TrainOptions, settings: Config) -> None:
    """Opens the splits, finds the initial weights, and trains."""
    train_dir = options.run.train_dir
    # Use all GPUs, and the hosts of TF_CONFIG.
    strategy = strategies.choose_strategy()
    # Open the records to train on, and those to validate on.
    names, validation = settings.class_names, None
    read, number = _open_split(options, options.dataset_split_name, names)
    if name := options.validation_split_name:
        read_val, num_images = _open_split(options, name, names)
        validation = Validation(read_val(None), num_images, name)
    # Read the initial weights; anchors and input means may come with them.
    settings, start = starts.initial_weights(settings, train_dir, options.start)
    # Train from there, or from where the run has stopped.
    fit(
        settings,
        train_dir,
        read,
        number,
        strategy,
        start,
        validation,
        options.run.confirm_changes,
    )


def _open_split(options, split, class_names):
    """Checks a split; returns its reader and its number of images."""
    return record_check.open_split(
        options.dataset_dir, split, len(class_names), options.unreadable_shards
    )


def fit(
    settings: Config,
    train_dir: str | os.PathLike,
    read: batches.Reader,
    num_samples: int,
    strategy: tf.distribute.Strategy | None = None,
    start: transfer.Start | None = None,
    validation: Validation | None = None,
    confirm_changes: bool = False,
) -> SSDNet:
    """Trains until `max_number_of_steps`, from where an earlier run ended.

    A run that is stopped and continued ends with the weights of one that was
    never stopped; on CPUs bit for bit.

    Args:
      settings: net, class names and recipe; written to the train_dir.
      train_dir: folder for checkpoints, config.json, metrics.jsonl and
        TensorBoard.
      read: reader of the records, see `input_pipeline.make_for_train`.
      num_samples: number of images in a pass over the records.
      strategy: distribution strategy; one device by default.
      start: initial weights, used if the train_dir has no checkpoint.
      validation: split to evaluate on, every `eval_interval_steps`.
      confirm_changes: continue a run even if its recipe was another.

    Returns:
      The trained net; with the averaged weights if the run keeps them.

    Raises:
      UserError: the train_dir is of another configuration or in use, the
        start does not fit, a loss is non-finite, an image cannot be read.
      Stopped: SIGTERM or Ctrl-C was received; the run is saved.
    """
    training = settings.training
    strategy = strategy or tf.distribute.get_strategy()
    _check_batch_size(training, strategy.num_replicas_in_sync)
    keras.utils.set_random_seed(training.seed)
    train_dir = pathlib.Path(train_dir)
    settings = dataclasses.replace(
        settings,
        num_samples=num_samples,
        validation_split=validation.split if validation else None,
    )
    chief = strategies.is_chief(strategy)
    with contextlib.ExitStack() as stack:
        # Lock the train_dir; explain the end of another worker.
        stack.enter_context(strategies.explained_end(strategy))
        if chief:
            stack.enter_context(run_lock.hold(train_dir))
        save_dir = stack.enter_context(_save_dir(train_dir, strategy, chief))
        # Build net, optimizer and averages; restore them from a checkpoint.
        run = _prepare(
            settings, train_dir, save_dir, strategy, start, confirm_changes
        )
        # Prepare the batches from the next step on, and the validation.
        stack.enter_context(train_step.sums_in_order())
        feed = TrainingBatches(run, read)
        validator = None
        if validation and chief:
            validator = Validator(validation, run.settings, train_dir)
        if chief:
            # Write to the train_dir, now that nothing can be refused any more.
            training_run.remove_partial(train_dir)
            config.save(run.settings, train_dir)
            stack.callback(loop.draw_curves, train_dir)
        # Take steps until the last one, a signal or a non-finite loss.
        loop.loop(run, feed, validator)
    # Return the averaged weights, which evaluation and export use.
    if run.average:
        run.average.copy_to_model()
    return run.net


def _prepare(
    settings: Config,
    train_dir: pathlib.Path,
    save_dir: pathlib.Path,
    strategy: tf.distribute.Strategy,
    start: transfer.Start | None,
    confirm_changes: bool,
) -> Run:
    """Builds the state of a run, and restores it if it was saved."""
    training = settings.training
    chief = strategies.is_chief(strategy)
    latest = tf.train.latest_checkpoint(str(train_dir))
    with strategy.scope():
        # Build the net, with initial weights unless the run continues.
        settings, net, report = _begin(
            settings, train_dir if latest else None, start, confirm_changes
        )
        if report and chief:
            transfer.show(report, start, net.params)
        # Let batch norm see the whole batch, not the part of one replica.
        if strategy.num_replicas_in_sync > 1:
            synchronize_batch_norm(net.model)
        # The optimizer with its schedule, and the average of the weights.
        optimizer = optimizers.make_optimizer(
            training, settings.num_samples / training.batch_size
        )
        optimizer.build(net.model.trainable_variables)
        average = None
        if training.ema_decay:
            average = averages.WeightAverage(net.model, training.ema_decay)
    # Continue from the last checkpoint, with all of this state.
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    manager = training_run.make_manager(
        save_dir, net, optimizer, step, training.max_to_keep, average
    )
    if latest:
        training_run.restore(manager.checkpoint, latest)
        if chief:
            say(f"going on from step {int(step)} of {train_dir}")
    return Run(
        settings=settings,
        train_dir=train_dir,
        net=net,
        optimizer=optimizer,
        average=average,
        step=step,
        manager=manager,
        strategy=strategy,
        take_step=train_step.make_train_step(
            net, optimizer, training, strategy, average
        ),
    )


def _begin(
    settings: Config,
    begun_dir: pathlib.Path | None,
    start: transfer.Start | None,
    confirm_changes: bool,
) -> tuple[Config, SSDNet, base.Report | None]:
    """Builds the net, with its initial weights if the run is new.

    Args:
      settings: net and recipe.
      begun_dir: train_dir of a run that continues, which needs no start.
      start: initial weights of a new run.
      confirm_changes: continue even with another recipe.

    Returns:
      The settings with the params of the built net, the net, and a report of
      the initial weights.
    """
    net = _build(settings.params, settings.training.precision)
    settings = dataclasses.replace(settings, params=net.params)
    report = None
    if begun_dir:
        before = checkpoint.load_run_config(begun_dir)
        training_run.check_resumable(
            begun_dir, before, settings, confirm_changes
        )
    elif start:
        report = transfer.apply(net, start)
    scopes.freeze_others(net, settings.training.trainable_scopes)
    return settings, net, report


def _build(params: SSDParams, precision: str) -> SSDNet:
    """Builds the net; explains an unfit size or trunk of the user's choice."""
    try:
        return SSDNet(params, precision)
    except ValueError as error:
        height, width = params.img_shape
        # Keras names the layer first, and then in bold the reason.
        *_, reason = re.sub(r"\x1b\[\d+m", "", str(error)).split("\n\n")[:2]
        raise UserError(
            f"{params.model_name} on {params.trunk} cannot be built for "
            f"{height}x{width} pixels: {reason}; choose another --image_size "
            "or --trunk"
        ) from error


def _check_batch_size(training: TrainParams, replicas: int) -> None:
    """Raises UserError unless the replicas' parts of a batch are equal."""
    parts = training.gradient_accumulation_steps
    if training.batch_size % (replicas * parts):
        of_parts = f" in --gradient_accumulation_steps={parts} parts each"
        raise UserError(
            f"--batch_size={training.batch_size}: not divisible by the "
            f"{replicas} devices that share a batch"
            + (of_parts if parts > 1 else "")
        )


@contextlib.contextmanager
def _save_dir(
    train_dir: pathlib.Path, strategy: tf.distribute.Strategy, chief: bool
) -> Iterator[pathlib.Path]:
    """Yields the folder to save in; only that of the chief is kept."""
    if chief:
        yield train_dir
        return
    scratch = train_dir / f".worker-{strategy.cluster_resolver.task_id}"
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
