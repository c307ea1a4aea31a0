"""HTTP requests that end by a deadline and are sent once.

A time limit of Python's sockets starts anew with every byte that comes, and
libraries send again what may have been begun. Nothing here knows of a model.
"""

import contextlib
import http.client
import math
import socket
import time
import weakref
from typing import NamedTuple

# Seconds in which no server closes a connection because nobody uses it.
_FRESH = 1.0
# What breaks a connection; errors of its time limit are none of them.
_BREAKS = (http.client.HTTPException, OSError)


class UnreachableError(Exception):
    """There is no connection; nothing was sent."""


class BrokenError(Exception):
    """The connection broke before the whole answer was there."""


class _SilentError(BrokenError):
    """Before any of it was there."""


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
        self._address = host, port
        self._idle: list[_Connection] = []
        weakref.finalize(self, _close, self._idle)

    def request(
        self, deadline: float, method: str, path: str, body: bytes | None = None
    ) -> Answer:
        """Sends a request, and once more where a kept connection was stale.

        Args:
          deadline: on `time.monotonic`.
          method: such as GET.
          path: from the slash.
          body: of a POST.

        Raises:
          TimeoutError: the whole answer was not there in time.
          UnreachableError, BrokenError, NoHttpError: there is none.
        """
        connection = self._kept()
        if connection:
            try:
                return self._send(connection, deadline, method, path, body)
            except _SilentError:
                # The server may have closed it just then.
                if connection.is_fresh():
                    raise
        connection = _Connection(*self._address)
        connection.open(deadline)
        return self._send(connection, deadline, method, path, body)

    def _kept(self):
        """An open connection, or None."""
        with contextlib.suppress(IndexError):
            while (connection := self._idle.pop()).is_dropped():
                connection.close()
            return connection
        return None

    def _send(self, connection, deadline, *request):
        try:
            answer = connection.ask(deadline, *request)
        except BaseException:
            connection.close()
            raise
        if connection.sock:
            self._idle.append(connection)
        return answer


def _close(connections):
    for connection in connections:
        connection.close()


class _Connection(http.client.HTTPConnection):
    """One request at a time."""

    auto_open = 0  # by `open` alone
    _used = -math.inf  # when the last answer came

    def open(self, deadline: float) -> None:
        """Connects.

        Raises:
          TimeoutError: not in time.
          UnreachableError: there is nobody.
        """
        self.timeout = _left(deadline)
        try:
            self.connect()
        except TimeoutError:
            raise
        except OSError as error:
            why = error.strerror or str(error)
            raise UnreachableError(why) from error
        self.sock = _Socket(fileno=self.sock.detach())

    def is_fresh(self) -> bool:
        """Whether it has just been used."""
        return self._asked - self._used < _FRESH

    def is_dropped(self) -> bool:
        """Whether the other side has closed it, or says what nobody asked."""
        self.sock.settimeout(0)
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def ask(self, deadline: float, *request) -> Answer:
        """Sends a request and reads its answer; see `Server.request`."""
        self.sock.deadline, self._asked = deadline, time.monotonic()
        try:
            self._send_all(request)
            response = self.getresponse()
            answer = Answer(response.status, response.read())
        except TimeoutError:
            raise
        except ConnectionResetError as error:
            raise _SilentError(str(error)) from error
        except http.client.BadStatusLine as error:
            raise NoHttpError(str(error)) from error
        except _BREAKS as error:
            raise BrokenError(str(error)) from error
        self._used = time.monotonic()
        return answer

    def _send_all(self, request):
        # Who refuses a body for its size answers before all of it has come.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.request(*request)


class _Socket(socket.socket):
    """Sends and reads up to a deadline, however little comes at a time."""

    deadline = 0.0  # on `time.monotonic`

    def sendall(self, *args):
        """As every socket's."""
        self.settimeout(_left(self.deadline))
        return super().sendall(*args)

    def recv_into(self, *args):
        """As every socket's."""
        self.settimeout(_left(self.deadline))
        return super().recv_into(*args)


def _left(deadline: float) -> float:
    """Seconds that are left.

    Raises:
      TimeoutError: none.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no time is left")
    return left
