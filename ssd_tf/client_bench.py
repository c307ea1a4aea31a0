"""How many images a second a server answers, and how long each request takes.

Knows nothing of protocols: what is measured is a function that may fail.
"""

import collections
import concurrent.futures
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssd_tf import command
from ssd_tf.serving_requests import RequestError

PERCENTILES = (50, 90, 95, 99)
# Of each thread, not counted: the first opens its connection.
WARMUP_REQUESTS = 2


class Sent(NamedTuple):
    """One request."""

    seconds: float  # until its answer, or until it had failed
    images: int
    error: str | None  # kind of it; None: answered


class Result(NamedTuple):
    """What was measured."""

    seconds: float  # from the first request to the last answer
    images: int  # that were answered
    latencies: np.ndarray  # float64 [requests that were answered], seconds
    errors: Mapping[str, int]  # kind -> requests that were not


def measure(
    predict: Callable[[Sequence[bytes]], object],
    batches: Sequence[Sequence[bytes]],
    concurrency: int,
    duration: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Result:
    """Asks again and again; a request that fails is counted, too.

    Args:
      predict: of encoded images; may raise `RequestError`.
      batches: of images; every thread asks them in turn.
      concurrency: requests at a time, each from a thread of its own.
      duration: seconds after which no request is begun any more.
      clock: seconds.
    """

    def warm_up(_: int) -> None:
        for batch in itertools.islice(
            itertools.cycle(batches), WARMUP_REQUESTS
        ):
            _send(predict, batch, clock)

    def ask(end: float) -> list[Sent]:
        turns, sent = itertools.cycle(batches), []
        while clock() < end and not stopped.is_set():
            sent.append(_send(predict, next(turns), clock))
        return sent

    stopped = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        try:
            list(pool.map(warm_up, range(concurrency)))
            start = clock()
            threads = pool.map(ask, [start + duration] * concurrency)
            sent = list(itertools.chain.from_iterable(threads))
            return summary(sent, clock() - start)
        finally:
            # Or whoever presses Ctrl-C would wait for the end.
            stopped.set()


def _send(predict, batch, clock) -> Sent:
    start, error = clock(), None
    try:
        predict(batch)
    except RequestError as raised:
        error = raised.kind
    return Sent(clock() - start, len(batch), error)


def summary(sent: Sequence[Sent], seconds: float) -> Result:
    """Sums up requests that took so many seconds together."""
    answered = [each for each in sent if each.error is None]
    return Result(
        seconds,
        sum(each.images for each in answered),
        np.array([each.seconds for each in answered], np.float64),
        collections.Counter(each.error for each in sent if each.error),
    )


def print_table(title: str, result: Result) -> None:
    """Prints requests, images/s, milliseconds of requests, and errors.

    Percentiles are those of answered requests, interpolated; a dash stands
    for all of them where there is none.
    """
    latencies, errors = result.latencies, result.errors
    milliseconds = ["-"] * len(PERCENTILES)
    if len(latencies):
        found = np.percentile(1000 * latencies, PERCENTILES)
        milliseconds = [f"{each:.1f}" for each in found]
    command.print_table(
        title,
        ("requests", "images/s", *(f"p{x} ms" for x in PERCENTILES), "errors"),
        [
            (
                len(latencies) + sum(errors.values()),
                f"{result.images / result.seconds:.1f}",
                *milliseconds,
                ", ".join(f"{kind} {errors[kind]}" for kind in sorted(errors))
                or "0",
            )
        ],
    )
