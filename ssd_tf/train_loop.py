"""The training loop: batch, step, log, save, validate.

Everything that may go wrong in a step is told here with the step, the images
and what to do; knows no flags otherwise.
"""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ssd_tf import (
    averages,
    checkpoint,
    guards,
    input_pipeline,
    optimizers,
    signals,
    strategies,
    waiting,
)
from ssd_tf.command import Stopped, UserError, progress, say
from ssd_tf.config import Config
from ssd_tf.metrics_log import MetricsLog, in_short
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.validation import Validator

# What the input pipeline raises at a bad record, and where there are not as
# many as the manifest says.
_BAD_DATA = (tf.errors.InvalidArgumentError, tf.errors.FailedPreconditionError)


_EARLY = "stopped early: {} evaluations without a better one"


@dataclasses.dataclass(frozen=True)
class Run:
    """What a training run is made of."""

    settings: Config
    train_dir: pathlib.Path
    net: SSDNet
    optimizer: keras.Optimizer
    average: averages.MovingAverage | None
    step: tf.Variable
    manager: tf.train.CheckpointManager
    strategy: tf.distribute.Strategy
    take_step: Callable[[Any], dict[str, tf.Tensor]]

    @property
    def is_chief(self) -> bool:
        """True on the one process that writes."""
        return strategies.is_chief(self.strategy)


class Feed:
    """The batches of a run from its next step on."""

    def __init__(self, run: Run, read: input_pipeline.Reader):
        """`read` is that of `input_pipeline.make_for_train`."""
        self._settings = run.settings
        self._read = read
        self._strategy = run.strategy
        first_step = int(run.step)
        training = run.settings.training

        def batches(context):
            batches = input_pipeline.make_for_train(
                read,
                run.settings.num_samples,
                run.settings.params,
                training.batch_size,
                training.augmentation,
                training.ignore_difficult,
                training.seed,
                first_step,
                context,
            )
            # Strings do not belong on a device.
            return batches.map(_without_source_id)

        self._iterator = iter(
            run.strategy.distribute_datasets_from_function(batches)
        )

    def batch_of(self, step: int) -> Any:
        """The batch of the next step, which is `step`.

        Raises:
          UserError: an image, box or label of it is bad.
        """
        try:
            return next(self._iterator)
        except _BAD_DATA as error:
            raise self._explained(step, error) from error

    def source_ids(self, step: int) -> list[str]:
        """The images of the global batch of a step."""
        return [r["source_id"].decode() for r in self._records_of(step)]

    def _records_of(self, step):
        training = self._settings.training
        return input_pipeline.records_of_step(
            self._read,
            self._settings.num_samples,
            training.batch_size,
            training.seed,
            step,
        )

    def _explained(self, step, error):
        try:
            reason = input_pipeline.explain_bad_record(
                self._records_of(step), self._settings.params.num_classes
            )
        except _BAD_DATA as of_records:
            error, reason = of_records, None
        reason = reason or error.message.split("\n")[0]
        return UserError(
            f"the data of step {step} cannot be trained on: {reason}; mend or "
            "remove it, convert again, and the same command goes on"
        )


def _without_source_id(batch):
    return {key: x for key, x in batch.items() if key != "source_id"}


class _Checks:
    """Looks at the terms of every step, while the next one is under way."""

    def __init__(self, run: Run, feed: Feed):
        self._run = run
        self._feed = feed
        self._latest = None

    def add(self, step: int, batch: Any, terms: dict[str, tf.Tensor]) -> None:
        """Checks the step before, which by now is done."""
        before, self._latest = self._latest, (step, batch, terms)
        if before:
            self._check(*before)

    def values(self) -> dict[str, float]:
        """The terms of the latest step, checked."""
        return self._check(*self._latest)

    def _check(self, step, batch, terms):
        values = {name: float(term) for name, term in terms.items()}
        scaled = "loss_scale" in values
        if not guards.all_finite(values, scaled):
            parts = self._run.strategy.experimental_local_results(batch)
            arrays = {
                key: np.concatenate([part[key].numpy() for part in parts])
                for key in parts[0]
            }
            guards.stop(
                values,
                step,
                arrays,
                self._feed.source_ids(step),
                self._run.train_dir,
            )
        return values


def loop(run: Run, feed: Feed, validator: Validator | None = None) -> None:
    """Step after step from `run.step` on, until the last or a reason to stop.

    Args:
      run: its step, weights and state are changed and saved.
      feed: the batches.
      validator: evaluates; on the chief only.

    Raises:
      UserError: a loss is not finite, data are bad, or the disk is full.
      Stopped: SIGTERM or Ctrl-C came; all is saved.
    """
    training = run.settings.training
    first, last = int(run.step), training.max_number_of_steps
    log = MetricsLog(run.train_dir, first) if run.is_chief else None
    checks, wait = _Checks(run, feed), waiting.WaitingTime()
    any_of = strategies.make_any(run.strategy)
    enough = any_of([_catch_up(run, validator, log, first)])[0]
    with (
        signals.stop_requests() as requests,
        progress("training", last - first) as advance,
    ):
        text, advised = "", False
        for number in range(first + 1, last + 1):
            if enough:
                say(_EARLY.format(training.early_stopping_patience))
                break
            with wait.waiting():
                batch = feed.batch_of(number)
            terms = run.take_step(batch)
            run.step.assign(number)
            checks.add(number, batch, terms)
            stopped = any_of([requests.received is not None])[0]
            saves = _due(number, training.save_interval_steps, last) or stopped
            validates = _due(number, training.eval_interval_steps, last)
            if saves or validates or number % training.log_every_n_steps == 0:
                values = {**checks.values(), "data_wait": wait.share()}
                text = in_short(values)
                _log(run, log, number, values)
                advised = advised or _advise(values["data_wait"])
            if validates and not stopped:
                enough = any_of([_validate(run, validator, log, number)])[0]
            if saves or enough:
                _save(run, number)
            advance(units=training.batch_size, text=text)
            if stopped:
                raise Stopped(requests.received, number, run.train_dir)


def _advise(share: float) -> bool:
    """Tells once where a run waits for its data."""
    advice = waiting.advice(share)
    if advice:
        say(advice)
    return advice is not None


def _due(step: int, interval: int, last: int) -> bool:
    return step % interval == 0 or step == last


def _catch_up(
    run: Run, validator: Validator | None, log: MetricsLog | None, step: int
) -> bool:
    """Evaluates what was saved by a process that was stopped just then."""
    training = run.settings.training
    if validator is None or not step:
        return False
    interval, last = training.eval_interval_steps, training.max_number_of_steps
    if _due(step, interval, last) and not validator.has_run(step):
        return _validate(run, validator, log, step)
    return validator.should_stop()


def _validate(
    run: Run, validator: Validator | None, log: MetricsLog | None, step: int
) -> bool:
    """Evaluates the weights of a step; whether training should stop."""
    if validator is None:
        return False
    with _disk(run.train_dir):
        validator.run(run.net, step, run.average, log)
    return validator.should_stop()


def _log(
    run: Run, log: MetricsLog | None, step: int, values: dict[str, float]
) -> None:
    if log:
        rate = optimizers.current_rate(run.optimizer)
        with _disk(run.train_dir):
            log.write(step, {**values, "learning_rate": rate})


def _save(run: Run, step: int) -> None:
    """Saves a step, whose weights are those of no loss yet."""
    weights = tf.nest.flatten(run.net.model.trainable_variables)
    if not math.isfinite(float(tf.linalg.global_norm(weights))):
        raise UserError(
            f"the weights are not finite after step {step}, and were not "
            "saved; lower --learning_rate"
        )
    with _disk(run.train_dir):
        checkpoint.save_run(run.manager, step)


@contextlib.contextmanager
def _disk(train_dir: pathlib.Path) -> Iterator[None]:
    """What cannot be written is told in one line; what was saved is kept."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise UserError(
            f"{train_dir}: cannot be written to: {reason}; nothing saved "
            "before is lost: make room, and the same command goes on from "
            "the last checkpoint"
        ) from error
