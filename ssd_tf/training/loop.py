"""The training loop: batch, step, log, save, validate.

Everything that may go wrong in a step is told here with the step, the images
and what to do; knows no flags otherwise.
"""

import contextlib
import math
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from ssd_tf.command import Stopped, UserError, progress, say, signals
from ssd_tf.nets import checkpoint
from ssd_tf.training import curves, nonfinite, optimizers, strategies
from ssd_tf.training import pictures as train_pictures
from ssd_tf.training.feed import Feed
from ssd_tf.training.log import MetricsLog, in_short
from ssd_tf.training.run import Run
from ssd_tf.training.validation import Validator

_EARLY = "stopped early: {} evaluations without a better one"


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
        if not nonfinite.all_finite(values):
            parts = self._run.strategy.experimental_local_results(batch)
            nonfinite.stop(
                values,
                step,
                nonfinite.join(
                    [{k: v.numpy() for k, v in x.items()} for x in parts]
                ),
                self._feed.source_ids(step),
                self._run.train_dir,
                strategies.worker_of(self._run.strategy),
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
    checks, wait = _Checks(run, feed), WaitingTime()
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
            if saves:
                _save(run, number)
            if validates and not stopped:
                _show(run, log, number, batch)
                enough = any_of([_validate(run, validator, log, number)])[0]
            if enough and not saves:
                _save(run, number)
            if saves or validates:
                wait.begin()
            advance(units=training.batch_size, text=text)
            if stopped:
                raise Stopped(requests.received, number, run.train_dir)


def _advise(share: float) -> bool:
    """Tells once where a run waits for its data."""
    text = advice(share)
    if text:
        say(text)
    return text is not None


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
    validator.run(run.net, step, run.average, log)
    draw_curves(run.train_dir)
    return validator.should_stop()


def _show(run: Run, log: MetricsLog | None, step: int, batch: Any) -> None:
    """What the batch teaches; of several devices the first one's part."""
    if log is None:
        return
    pictures = train_pictures.pictures(
        run.net,
        run.strategy.experimental_local_results(batch)[0],
        run.settings.training.loss,
        run.settings.class_names,
    )
    with checkpoint.explained_writes(run.train_dir):
        log.write_pictures(step, "batch", pictures)


def draw_curves(train_dir: pathlib.Path) -> pathlib.Path | None:
    """Draws what has been logged; None without matplotlib.

    Raises:
      UserError: there is no room.
    """
    with checkpoint.explained_writes(train_dir):
        return curves.draw(train_dir)


def _log(
    run: Run, log: MetricsLog | None, step: int, values: dict[str, float]
) -> None:
    if log:
        rate = optimizers.current_rate(run.optimizer)
        with checkpoint.explained_writes(run.train_dir):
            log.write(step, {**values, "learning_rate": rate})


def _save(run: Run, step: int) -> None:
    """Saves a step, whose weights are those of no loss yet."""
    weights = tf.nest.flatten(run.net.model.trainable_variables)
    if not math.isfinite(float(tf.linalg.global_norm(weights))):
        raise UserError(
            f"the weights are not finite after step {step}, and were not "
            "saved; lower --learning_rate"
        )
    with checkpoint.explained_writes(run.train_dir):
        checkpoint.save_run(run.manager, step)


# Share of the time from which the device is no longer what limits a run.
INPUT_BOUND = 0.2


class WaitingTime:
    """Share of the time that a loop waits, window by window.

    It is the time in which the device has nothing to do if the step before is
    done when the waiting begins. Where a step is still under way on a GPU, a
    wait may be longer than the device idles; without need for the data to be
    waited for it is still 0, as they are made at the same time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """`clock`: seconds."""
        self._clock = clock
        self.begin()
        self._first = True

    def begin(self) -> None:
        """A window begins: what came before it is not the loop's."""
        self._started = self._clock()
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what waits for the data."""
        started = self._clock()
        yield
        self._waited += self._clock() - started

    def share(self) -> float:
        """The share since it was last asked for, 0 to 1; a window ends.

        0 the first time: the buffers fill once and the step is compiled.
        """
        took = self._clock() - self._started
        share = self._waited / took if took > 0 and not self._first else 0.0
        self._first = False
        self.begin()
        return share


def advice(share: float) -> str | None:
    """One line for who waits too much; None below `INPUT_BOUND`.

    Args:
      share: from `WaitingTime.share`.
    """
    if share <= INPUT_BOUND:
        return None
    return (
        "the input pipeline, not the device, is the bottleneck: "
        f"{share:.0%} of the time is spent waiting for data; what helps: more "
        "CPU cores, --augmentation=light, smaller pictures in the TFRecords, "
        "the TFRecords on a local disk"
    )
