"""Warm wall-clock times of calls; knows nothing of what is called."""

import time
from collections.abc import Callable
from typing import Any

# Takes one measurement: seconds per image.
Measure = Callable[[], float]
# A measurement lasts at least so long, so that the clock's and the machine's
# noise stay small beside it.
MIN_SECONDS = 0.2


def seconds(call: Callable[[], Any], times: int) -> float:
    """Mean wall-clock seconds of a call."""
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def warmed(call: Callable[[], Any], images: int) -> Measure:
    """What measures a call that handles so many images.

    The call has been made when this returns, and once more before each
    measurement: what it compiles does not count, nor that caches and free
    memory are as the case whose turn it was before has left them.
    """
    call()
    times = max(1, round(MIN_SECONDS / seconds(call, 1)))

    def measure() -> float:
        call()
        return seconds(call, times) / images

    return measure
