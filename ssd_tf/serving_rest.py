"""Asks TensorFlow Serving by REST, without TensorFlow."""

import base64
import http.client
import json
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import urllib3
from urllib3 import exceptions

from ssd_tf.serving_requests import (
    BACKOFF,
    LONGEST_BACKOFF,
    OUTPUTS,
    PROTOCOL,
    TOO_LARGE,
    UNREACHABLE,
    Asked,
    RequestError,
    Signature,
    no_detections,
    other_protocol,
    split,
    wait_until_available,
)

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
_RETRIED = (429, 503, 504)


class RestClient:
    """A model of a server; for any number of threads."""

    def __init__(self, asked: Asked):
        """Connects with the first request.

        Raises:
          UserError: the server is not HOST:PORT.
        """
        self._asked = asked
        host, port = split(asked.server)
        self._pool = urllib3.HTTPConnectionPool(
            host,
            port,
            timeout=urllib3.Timeout(total=asked.timeout),
            maxsize=asked.connections,
            retries=_Retry(
                asked.retries,
                allowed_methods=None,  # to detect again does no harm
                status_forcelist=_RETRIED,
                backoff_factor=BACKOFF,
                backoff_max=LONGEST_BACKOFF,
                raise_on_status=False,
                # Would wait for as long as the server likes.
                respect_retry_after_header=False,
            ),
        )
        self._path = f"/v1/models/{urllib.parse.quote(asked.model_name, '')}"
        if asked.version is not None:
            self._path += f"/versions/{asked.version}"

    def predict(self, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Detections on encoded images, at least one.

        Returns:
          `detection_boxes` float32 `[B, K, 4]`, `detection_scores` float32
          `[B, K]`, `detection_classes` int32 `[B, K]` and `num_detections`
          int32 `[B]`, as `ssd_tf.serving.Predict`.

        Raises:
          RequestError: no answer, or another one.
        """
        body = {
            "signature_name": self._asked.signature_name,
            "instances": [
                {"b64": base64.b64encode(image).decode()} for image in images
            ],
        }
        rows = self._ask(_rows, "POST", ":predict", json.dumps(body))
        try:
            return {
                name: np.array([row[name] for row in rows], dtype)
                for name, dtype in OUTPUTS.items()
            }
        except (KeyError, TypeError, ValueError) as error:
            raise no_detections(self._asked) from error

    def states(self) -> dict[str, str]:
        """Number of each version -> its state, such as LOADING."""
        return self._ask(_states, "GET")

    def signatures(self) -> dict[str, Signature]:
        """Signatures by their names."""
        return self._ask(_signatures, "GET", "/metadata")

    def wait_until_available(self, seconds: float = 0.0) -> None:
        """Waits for the model; see `wait_until_available`."""
        wait_until_available(self, self._asked, seconds)

    def _ask(
        self,
        read: Callable[[Any], Any],
        method: str,
        what: str = "",
        body: str | None = None,
    ) -> Any:
        """What is read from the JSON of an answer."""
        try:
            answer = self._pool.request(
                method, self._path + what, body=body, redirect=False
            )
        except exceptions.HTTPError as error:
            raise _unanswered(error, self._asked) from error
        good = answer.status == 200
        try:
            content = json.loads(answer.data.decode(errors="replace"))
            found = read(content) if good else str(content["error"])
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            quote = answer.data[:60].decode(errors="replace")
            said = (
                "answers, but not as TensorFlow Serving does (HTTP "
                f"{answer.status}, {quote!r}); its REST port is 8501 unless "
                "it was told another"
            )
            raise RequestError(PROTOCOL, said, self._asked) from error
        if not good:
            code = _CODES.get(answer.status, f"HTTP {answer.status}")
            raise RequestError(code, found, self._asked)
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


class _Retry(urllib3.Retry):
    """Does not try again when the time is over."""

    def increment(self, *args, error=None, **kwargs):
        timed_out = isinstance(error, exceptions.TimeoutError)
        if timed_out and not isinstance(error, exceptions.NewConnectionError):
            raise error
        return super().increment(*args, error=error, **kwargs)


def _unanswered(error: exceptions.HTTPError, asked: Asked) -> RequestError:
    """The error of a connection that brought no answer."""
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, exceptions.NewConnectionError):
        why = str(reason).rpartition(": ")[2]
        return RequestError(UNREACHABLE, why, asked)
    if isinstance(reason, exceptions.TimeoutError):
        return RequestError("DEADLINE_EXCEEDED", "no answer", asked)
    cause = reason.args[-1] if reason.args else reason
    lost = isinstance(cause, http.client.RemoteDisconnected)
    if isinstance(cause, http.client.BadStatusLine) and not lost:
        return other_protocol("HTTP", "grpc", asked)
    return RequestError(UNREACHABLE, f"the connection broke ({cause})", asked)
