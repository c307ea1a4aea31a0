"""HTTP requests that end by a deadline and are sent once, by urllib3.

A library's time limit starts anew with every byte that comes; whoever waits
wants the whole answer in time. Nothing here knows of a model.
"""

import http.client
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import urllib3
from urllib3 import exceptions

# Connections that stay open; more are closed again after their request.
_KEPT = 32


class UnreachableError(Exception):
    """There is no connection; nothing was sent."""


class BrokenError(Exception):
    """The connection broke before the whole answer was there."""


class NoHttpError(Exception):
    """What answers does not speak HTTP."""


class Answer(NamedTuple):
    """What a server has said."""

    status: int
    content: bytes


class Server:
    """Connections to a server that stay open; for any number of threads."""

    def __init__(self, host: str, port: int):
        """Connects with the first request.

        Args:
          host: a name, an IPv4 address, or an IPv6 address in brackets.
          port: of plain HTTP.
        """
        self._pool = urllib3.HTTPConnectionPool(
            host, port, maxsize=_KEPT, retries=False
        )

    def request(
        self, deadline: float, method: str, path: str, body: bytes | None = None
    ) -> Answer:
        """Sends a request, once.

        Args:
          deadline: on `time.monotonic`.
          method: such as GET.
          path: from the slash.
          body: of a POST.

        Raises:
          TimeoutError: the whole answer was not there in time.
          UnreachableError, BrokenError, NoHttpError: there is none.
        """
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time is left")

        def ask() -> Answer:
            response = self._pool.urlopen(
                method, path, body, redirect=False, timeout=left
            )
            return Answer(response.status, response.data)

        try:
            return _within(left, ask)
        except exceptions.NewConnectionError as error:
            cause = getattr(error.__cause__, "strerror", None)
            raise UnreachableError(cause or str(error)) from error
        except exceptions.TimeoutError as error:
            raise TimeoutError(str(error)) from error
        except exceptions.HTTPError as error:
            raise _broken(error) from error


def _within(seconds: float, function: Callable[[], Any]) -> Any:
    """The result of a function, or what it raises, if that is in time.

    Raises:
      TimeoutError: it is not. The function is left to itself.
    """
    results = queue.SimpleQueue()

    def run():
        try:
            results.put((function(), None))
        except BaseException as error:
            results.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError("no answer in time") from None
    if error:
        raise error
    return result


def _broken(error):
    """What an error of urllib3 means here."""
    cause = error.args[-1] if error.args else error
    if isinstance(cause, TimeoutError):  # while the request was sent
        return cause
    if isinstance(cause, http.client.BadStatusLine) and not isinstance(
        cause, http.client.RemoteDisconnected
    ):
        return NoHttpError(str(cause))
    return BrokenError(str(cause))
