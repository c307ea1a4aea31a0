"""Measures a server: images per second and the latency of requests.

Knows nothing of protocols: what is measured is a function that may fail.
"""

import collections
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from ssd_tf import command
from ssd_tf.client.errors import RequestError

PERCENTILES = (50, 90, 95, 99)
# Of each thread, not counted: the first opens its connection.
WARMUP_REQUESTS = 2
# A Ctrl-C that comes just before a wait begins is noticed when it ends.
_LONGEST_WAIT = 0.5


class Request(NamedTuple):
    """A request, ready to be sent."""

    ask: Callable[[], object]  # may raise `RequestError`
    images: int


class Sent(NamedTuple):
    """One request."""

    seconds: float  # until its answer, or until it had failed
    images: int
    error: str | None  # kind of it; None: answered


class Result(NamedTuple):
    """Figures of a measurement."""

    seconds: float  # from the first request to the last answer
    images: int  # that were answered
    latencies: np.ndarray  # float64 [requests that were answered], seconds
    errors: Mapping[str, int]  # kind -> requests that were not


def measure(
    requests: Sequence[Request],
    concurrency: int,
    duration: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Result:
    """Asks again and again; a request that fails is counted, too.

    Args:
      requests: every thread asks them in turn.
      concurrency: requests at a time, each from a thread of its own.
      duration: seconds after which no request is begun any more.
      clock: seconds.
    """

    def ask(turns: Iterable[Request], end: float) -> list[Sent]:
        sent = []
        for request in turns:
            if stopped.is_set() or clock() >= end:
                break
            sent.append(_send(request, clock))
        return sent

    def in_threads(count: int | None, end: float) -> list[Sent]:
        """Sends from all threads; returns all requests."""
        begun = [
            _begin(ask, itertools.islice(itertools.cycle(requests), count), end)
            for _ in range(concurrency)
        ]
        return [sent for result in _results(begun) for sent in result]

    stopped = threading.Event()
    try:
        in_threads(WARMUP_REQUESTS, math.inf)
        start = clock()
        sent = in_threads(None, start + duration)
        return summary(sent, clock() - start)
    finally:
        stopped.set()


def _begin(function, *args) -> futures.Future:
    """Calls a function in a thread that nobody waits for at the end.

    Or who presses Ctrl-C would wait for answers that may never come.
    """

    def call() -> None:
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)

    future = futures.Future()
    threading.Thread(target=call, daemon=True).start()
    return future


def _results(begun: Iterable[futures.Future]) -> Iterator[list[Sent]]:
    """Yields the results as they arrive; raises the first exception."""
    waiting = begun
    while waiting:
        done, waiting = futures.wait(
            waiting, _LONGEST_WAIT, futures.FIRST_EXCEPTION
        )
        for each in done:
            yield each.result()


def _send(request, clock) -> Sent:
    start, error = clock(), None
    try:
        request.ask()
    except RequestError as raised:
        error = raised.kind
    return Sent(clock() - start, request.images, error)


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
