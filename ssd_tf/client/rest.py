"""Asks TensorFlow Serving by REST, without TensorFlow.

A request ends by its deadline and is sent once. urllib3's time limit starts
anew with every byte that comes, so a thread waits for the whole answer.
"""

import base64
import http.client
import json
import queue
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import urllib3
from urllib3 import exceptions

from ssd_tf.client.errors import (
    BROKEN,
    GATEWAY,
    OUTPUTS,
    PROTOCOL,
    TOO_LARGE,
    UNREACHABLE,
    Asked,
    RequestError,
    Signature,
    ask_again,
    no_detections,
    other_protocol,
    split,
    wait_until_available,
)

# Connections that stay open; more are closed again after their request.
_KEPT = 32


class UnreachableError(Exception):
    """There is no connection; nothing was sent."""


class BrokenError(Exception):
    """The connection broke before the whole answer was there."""


class NoHttpError(Exception):
    """The server does not speak HTTP."""


class Answer(NamedTuple):
    """Status and content of a response."""

    status: int
    content: bytes


class Server:
    """Connections to a server that stay open; for any number of threads."""

    def __init__(self, host: str, port: int):
        """Connects with the first request.

        Args:
          host: a name, an IPv4 address, or an IPv6 address in brackets.
          port: port of plain HTTP.
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
    """Returns the result of a function, or raises its error, in time.

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
    """Translates an error of urllib3."""
    cause = error.args[-1] if error.args else error
    if isinstance(cause, TimeoutError):  # while the request was sent
        return cause
    if isinstance(cause, http.client.BadStatusLine) and not isinstance(
        cause, http.client.RemoteDisconnected
    ):
        return NoHttpError(str(cause))
    return BrokenError(str(cause))


_CODES = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: TOO_LARGE,
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# Of answers without TensorFlow Serving's JSON: a proxy's, whose server starts,
# is gone or takes too long.
_CODES_OF_PROXIES = {
    413: TOO_LARGE,
    429: "RESOURCE_EXHAUSTED",
    502: GATEWAY,
    503: "UNAVAILABLE",
    504: GATEWAY,
}


class RestClient:
    """A model of a server; for any number of threads."""

    def __init__(self, asked: Asked):
        """Connects with the first request.

        Raises:
          UserError: the server is not HOST:PORT.
        """
        self._asked = asked
        self._server = Server(*split(asked.server))
        self._path = f"/v1/models/{urllib.parse.quote(asked.model_name, '')}"
        if asked.version is not None:
            self._path += f"/versions/{asked.version}"

    def prepare(self, images: Sequence[bytes]) -> Callable[[], Any]:
        """Returns the call that asks for detections on encoded images.

        It may be called more than once, and in any thread; see `predict`.
        """
        body = {
            "signature_name": self._asked.signature_name,
            "instances": [
                {"b64": base64.b64encode(image).decode()} for image in images
            ],
        }
        data = json.dumps(body).encode()
        return lambda: self._detections(
            self._ask(_rows, "POST", ":predict", data)
        )

    def predict(self, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Returns detections on encoded images, at least one.

        Returns:
          `detection_boxes` float32 `[B, K, 4]`, `detection_scores` float32
          `[B, K]`, `detection_classes` int32 `[B, K]` and `num_detections`
          int32 `[B]`, as `ssd_tf.detect.saved_model.Predict`.

        Raises:
          RequestError: no answer, or another one.
        """
        return self.prepare(images)()

    def states(self, seconds: float | None = None) -> dict[str, str]:
        """Returns the state of each version, such as LOADING.

        Args:
          seconds: to wait for the answer; None: as for every request.
        """
        return self._ask(_states, "GET", seconds=seconds)

    def signatures(self) -> dict[str, Signature]:
        """Returns signatures by their names."""
        return self._ask(_signatures, "GET", "/metadata")

    def wait_until_available(self, seconds: float = 0.0) -> None:
        """Waits for the model; see `wait_until_available`."""
        wait_until_available(self, self._asked, seconds)

    def _detections(self, rows):
        try:
            return {
                name: np.array([row[name] for row in rows], dtype)
                for name, dtype in OUTPUTS.items()
            }
        except (KeyError, TypeError, ValueError) as error:
            raise no_detections(self._asked) from error

    def _ask(
        self,
        read: Callable[[Any], Any],
        method: str,
        what: str = "",
        body: bytes | None = None,
        seconds: float | None = None,
    ) -> Any:
        """Asks and reads the JSON of the answer."""

        def ask(deadline: float) -> Any:
            answer = _answer(self._server, deadline, request, self._asked)
            return _content(answer, read, self._asked)

        request = method, self._path + what, body
        return ask_again(ask, self._asked, seconds or self._asked.timeout)


def _answer(server, deadline, request, asked) -> Answer:
    try:
        return server.request(deadline, *request)
    except TimeoutError as error:
        said = "no answer"
        raise RequestError("DEADLINE_EXCEEDED", said, asked) from error
    except UnreachableError as error:
        raise RequestError(UNREACHABLE, str(error), asked) from error
    except BrokenError as error:
        raise RequestError(BROKEN, str(error), asked) from error
    except NoHttpError as error:
        raise other_protocol("HTTP", "grpc", asked) from error


def _content(answer: Answer, read, asked: Asked) -> Any:
    """Reads the JSON of a good answer."""
    status = answer.status
    text = answer.content.decode(errors="replace")
    try:
        content = json.loads(text)
        found = read(content) if status == 200 else str(content["error"])
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        said = f"HTTP {status}, {text[:60]!r}"
        if status in _CODES_OF_PROXIES:
            code = _CODES_OF_PROXIES[status]
            raise RequestError(code, said, asked) from error
        said = (
            f"answers, but not as TensorFlow Serving does ({said}); its REST "
            "port is 8501 unless it was told another"
        )
        raise RequestError(PROTOCOL, said, asked) from error
    if status != 200:
        raise RequestError(_CODES.get(status, f"HTTP {status}"), found, asked)
    return found


def _rows(content):
    return content["predictions"]


def _states(content):
    versions = content["model_version_status"]
    return {each["version"]: each["state"] for each in versions}


def _signatures(content):
    found = content["metadata"]["signature_def"]["signature_def"]
    return {
        name: Signature(
            {key: x["dtype"] for key, x in each.get("inputs", {}).items()},
            set(each.get("outputs", ())),
        )
        for name, each in found.items()
    }
