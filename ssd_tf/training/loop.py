"""The training loop: batch, step, log, save, validate."""

import contextlib
import math
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from ssd_tf.command import Stopped, UserError, progress, say, signals
from ssd_tf.training import curves, nonfinite, optimizers, strategies
from ssd_tf.training import log as metrics_log
from ssd_tf.training import pictures as train_pictures
from ssd_tf.training.feed import TrainingBatches
from ssd_tf.training.log import MetricsLog
from ssd_tf.training.run import Run, explained_writes, save
from ssd_tf.training.validation import Validator

# Share of time waiting for data above which the input limits a run.
INPUT_BOUND = 0.2


class _LossChecks:
    """Checks that the terms of each step are finite, one step later.

    To read a step's terms is to wait for its end. One step later the next one
    is under way already, and the device does not idle meanwhile.
    """

    def __init__(self, run: Run, feed: TrainingBatches):
        self._run = run
        self._feed = feed
        self._latest = None

    def add(self, step: int, batch: Any, terms: dict[str, tf.Tensor]) -> None:
        """Checks the step before, and keeps this one for the next call.

        Raises:
          UserError: a term is non-finite; the batch is saved.
        """
        before, self._latest = self._latest, (step, batch, terms)
        if before:
            self._check(*before)

    def values(self) -> dict[str, float]:
        """Returns the terms of the latest step, checked."""
        return self._check(*self._latest)

    def _check(self, step, batch, terms):
        values = {name: float(term) for name, term in terms.items()}
        if not nonfinite.all_finite(values):
            parts = self._run.strategy.experimental_local_results(batch)
            arrays = [{k: v.numpy() for k, v in x.items()} for x in parts]
            nonfinite.stop(
                values,
                step,
                nonfinite.join(arrays),
                self._feed.source_ids(step),
                self._run.train_dir,
                strategies.worker_of(self._run.strategy),
            )
        return values


def loop(
    run: Run, feed: TrainingBatches, validator: Validator | None = None
) -> None:
    """Takes step after step from `run.step` on, up to the last one.

    Args:
      run: the run, whose step, weights and state are changed and saved.
      feed: the batches from the next step on.
      validator: evaluates the net; in the chief process only.

    Raises:
      UserError: a loss is non-finite, data are invalid, or the disk is full.
      Stopped: SIGTERM or Ctrl-C was received; the run is saved.
    """
    training = run.settings.training
    first, last = int(run.step), training.max_number_of_steps
    log = MetricsLog(run.train_dir, first) if run.is_chief else None
    checks, stall = _LossChecks(run, feed), InputStall()
    any_process = strategies.make_any_process(run.strategy)
    # The last process may have been killed between a save and its validation.
    enough = any_process(_catch_up(run, validator, log, first))
    with (
        signals.stop_requests() as requests,
        progress("training", last - first) as advance,
    ):
        text, advised = "", None
        for number in range(first + 1, last + 1):
            if enough:
                patience = training.early_stopping_patience
                say(f"stopped early: {patience} evaluations without a better")
                break
            # Wait for the batch, and start the step on it.
            with stall.waiting():
                batch = feed.batch_of(number)
            terms = run.take_step(batch)
            run.step.assign(number)
            # Stop if the loss of the step before is non-finite.
            checks.add(number, batch, terms)
            # A signal to one process stops all of them.
            stopped = any_process(requests.received is not None)
            saves = _due(number, training.save_interval_steps, last) or stopped
            validates = _due(number, training.eval_interval_steps, last)
            # Log loss, learning rate and waiting time; never save unchecked.
            if saves or validates or number % training.log_every_n_steps == 0:
                values = {**checks.values(), "data_wait": stall.share()}
                text = metrics_log.in_short(values)
                _log(run, log, number, values)
                if not advised and (advised := advice(values["data_wait"])):
                    say(advised)
            # Save weights, optimizer and step.
            if saves:
                _save(run, number)
            # Draw the batch, evaluate the net, and see whether to stop early.
            if validates and not stopped:
                _show(run, log, number, batch)
                enough = any_process(_validate(run, validator, log, number))
            if enough and not saves:
                _save(run, number)
            if saves or validates:
                stall.begin()
            advance(units=training.batch_size, text=text)
            if stopped:
                raise Stopped(requests.received, number, run.train_dir)


def _due(step: int, interval: int, last: int) -> bool:
    return step % interval == 0 or step == last


def _catch_up(
    run: Run, validator: Validator | None, log: MetricsLog | None, step: int
) -> bool:
    """Evaluates a step that was saved, but not evaluated, before a kill."""
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
    """Evaluates the weights of a step; tells whether training should stop."""
    if validator is None:
        return False
    validator.run(run.net, step, run.average, log)
    draw_curves(run.train_dir)
    return validator.should_stop()


def _show(run: Run, log: MetricsLog | None, step: int, batch: Any) -> None:
    """Writes pictures of the batch (of the first replica) to TensorBoard."""
    if log is None:
        return
    pictures = train_pictures.pictures(
        run.net,
        run.strategy.experimental_local_results(batch)[0],
        run.settings.training.loss,
        run.settings.class_names,
    )
    with explained_writes(run.train_dir):
        log.write_pictures(step, "batch", pictures)


def draw_curves(train_dir: pathlib.Path) -> None:
    """Draws `curves.png` if anything has been logged.

    Raises:
      UserError: the picture cannot be written.
    """
    if metrics_log.read(train_dir):
        with explained_writes(train_dir):
            curves.draw(train_dir)


def _log(
    run: Run, log: MetricsLog | None, step: int, values: dict[str, float]
) -> None:
    if log:
        rate = optimizers.current_rate(run.optimizer)
        with explained_writes(run.train_dir):
            log.write(step, {**values, "learning_rate": rate})


def _save(run: Run, step: int) -> None:
    """Saves a step if its weights, which no loss has tested, are finite."""
    weights = tf.nest.flatten(run.net.model.trainable_variables)
    if not math.isfinite(float(tf.linalg.global_norm(weights))):
        raise UserError(
            f"the weights are not finite after step {step}, and were not "
            "saved; lower --learning_rate"
        )
    with explained_writes(run.train_dir):
        save(run.manager, step)


class InputStall:
    """Measures the share of time that a loop waits for its data.

    The device idles for that time if the step before has ended when the wait
    begins. Where a step is still under way on a GPU, a wait may be longer than
    the device idles; it is 0 as long as the input keeps up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """Starts the first window; `clock` returns seconds."""
        self._clock = clock
        self.begin()
        self._first = True

    def begin(self) -> None:
        """Starts a window; the time before it does not count."""
        self._started = self._clock()
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting."""
        started = self._clock()
        yield
        self._waited += self._clock() - started

    def share(self) -> float:
        """Returns the share in this window, 0 to 1, and starts another.

        0 the first time: the buffers fill once and the step is compiled.
        """
        took = self._clock() - self._started
        share = self._waited / took if took > 0 and not self._first else 0.0
        self._first = False
        self.begin()
        return share


def advice(share: float) -> str | None:
    """Returns a remedy for a share of waiting above `INPUT_BOUND`, or None."""
    if share <= INPUT_BOUND:
        return None
    return (
        "the input pipeline, not the device, is the bottleneck: "
        f"{share:.0%} of the time is spent waiting for data; what helps: more "
        "CPU cores, --augmentation=light, smaller pictures in the TFRecords, "
        "the TFRecords on a local disk"
    )
