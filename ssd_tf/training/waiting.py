"""How much of a run is waiting for its data, and what helps."""

import contextlib
import time
from collections.abc import Callable, Iterator

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
