"""Requests to stop that come as signals, answered between two steps."""

import contextlib
import signal
import threading
from collections.abc import Iterator

_REQUESTS = {
    # What they do when they come once more: Ctrl-C ends the loop at once
    # with its exception, SIGTERM the process.
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


class StopRequests:
    """The signals received so far."""

    def __init__(self):
        """Nothing has."""
        self.received: str | None = None  # "SIGTERM" or "SIGINT"


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Notes the first SIGTERM or Ctrl-C instead of stopping.

    The next one, of either kind, does what it always does, so that a loop
    that hangs can still be stopped. A signal that the process was told to
    ignore, as a shell tells its background jobs, stays ignored. Only the main
    thread gets signals; in another nothing is ever noted.

    Yields:
      The object that tells; `received` stays None until a signal comes.
    """
    requests = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return

    def note(number, _):
        requests.received = signal.Signals(number).name
        for each in before:
            signal.signal(each, _REQUESTS[each])

    before = {
        number: handler
        for number in _REQUESTS
        if (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }
    try:
        for number in before:
            signal.signal(number, note)
        yield requests
    finally:
        for number, handler in before.items():
            # None: a handler of C, which Python cannot put back.
            signal.signal(number, handler or signal.SIG_DFL)
