"""Requests to a server, and everything it can answer, by REST or by gRPC.

REST answers with gRPC's codes as HTTP statuses, so that both report an error
in the same words. Nothing here needs TensorFlow.
"""

import ipaddress
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ssd_tf.command import UserError

Answer = TypeVar("Answer")

INPUT = "image_bytes"
INPUTS = {INPUT: "DT_STRING"}
OUTPUTS = {
    "detection_boxes": np.float32,
    "detection_scores": np.float32,
    "detection_classes": np.int32,
    "num_detections": np.int32,
}
# Kinds of errors that are none of gRPC's codes.
UNREACHABLE, PROTOCOL, LOADING = "UNREACHABLE", "PROTOCOL", "LOADING"
SIGNATURE, TOO_LARGE = "SIGNATURE", "TOO_LARGE"
# What has become of the request is not known: it is not sent once more, as an
# image that ends one server would end the next one, too.
BROKEN, GATEWAY, WAITED = "BROKEN", "GATEWAY", "WAITED"
_MESSAGES = {
    UNREACHABLE: "--server={asked.server}: {said}; is a server running there? "
    "--wait=60 waits for it",
    PROTOCOL: "--server={asked.server}: {said}",
    BROKEN: "--server={asked.server}: the connection broke before there was "
    "an answer ({said})",
    GATEWAY: "--server={asked.server}: what answers in its place had no "
    "answer from it ({said})",
    WAITED: "{said}",
    LOADING: "--model_name={asked.model_name}: is known to {asked.server} but "
    "not available ({said}); --wait=60 waits for it",
    SIGNATURE: "--signature_name={asked.signature_name}: {said}",
    TOO_LARGE: "--batch_size: {asked.server} takes no request that large "
    "({said}); choose a smaller one",
    "NOT_FOUND": "--model_name={asked.model_name}: {asked.server} does not "
    "have it, or not this --version ({said})",
    "DEADLINE_EXCEEDED": "--timeout={asked.timeout:g}: {asked.server} has not "
    "answered within so many seconds ({said})",
}
_NO_DETECTIONS = f"does not answer with {', '.join(OUTPUTS)} for each image"
_OTHER = "--server={asked.server}: {kind}: {said}"
# What a server that is starting says; everything else stays as it is.
_PASSING = (UNREACHABLE, LOADING, "UNAVAILABLE", "NOT_FOUND")
_PASSING += ("DEADLINE_EXCEEDED", BROKEN, GATEWAY)
# Nothing has been done yet for who is told so.
_NOT_BEGUN = (UNREACHABLE, "UNAVAILABLE", "RESOURCE_EXHAUSTED")
# Seconds before another try, and between two looks at a model's state.
BACKOFF, LONGEST_BACKOFF, _POLL = 0.1, 2.0, 0.25


class Asked(NamedTuple):
    """The model that is asked, and with how much patience."""

    server: str  # HOST:PORT
    model_name: str = "ssd"
    version: int | None = None  # the highest that is served
    signature_name: str = "serving_default"
    timeout: float = 30.0  # seconds of a request with all its retries
    retries: int = 3


class Signature(NamedTuple):
    """Inputs and outputs of a function of a model."""

    inputs: dict[str, str]  # name -> type, such as DT_STRING
    outputs: set[str]  # names


class RequestError(UserError):
    """A request without the expected answer."""

    def __init__(self, kind: str, said: str, asked: Asked):
        """Describes the error with the flag that may help.

        Args:
          kind: one of gRPC's codes, or of the kinds above.
          said: what happened; the server's words may be many lines.
          asked: what was asked.
        """
        said = _shortened(said)
        # A batching server's words, and those of gRPC.
        self.kind = TOO_LARGE if "larger than max" in said else kind
        message = _MESSAGES.get(self.kind, _OTHER)
        super().__init__(message.format(asked=asked, kind=kind, said=said))


def _shortened(said: str) -> str:
    """Returns the first line, without TensorFlow's names of nodes."""
    said = re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]", "", said)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[0][:300] if lines else "it does not say why"


def split(server: str) -> tuple[str, int]:
    """Splits HOST:PORT; an IPv6 address keeps its brackets.

    Raises:
      UserError: it is not HOST:PORT.
    """
    host, _, port = server.rpartition(":")
    is_port = port.isdecimal() and 0 < int(port) < 1 << 16
    if not is_port or not _is_host(host):
        raise UserError(
            f"--server={server}: expected HOST:PORT, such as localhost:8501"
        )
    return host, int(port)


def _is_host(host):
    try:
        if host.startswith("[") and host.endswith("]"):
            return bool(ipaddress.IPv6Address(host[1:-1]))
        # Names of domains have parts of 1 to 63 characters.
        return bool(re.fullmatch(r"[\w.-]+", host) and host.encode("idna"))
    except ValueError:
        return False


def ask_again(
    ask: Callable[[float], Answer], asked: Asked, seconds: float
) -> Answer:
    """Asks, and again only if the server has not begun with the request.

    urllib3's and gRPC's retries cannot tell that apart from a connection that
    broke under a request, which must not be sent again.

    Args:
      ask: function of the deadline, on the clock of `time.monotonic`.
      asked: the model, with the number of retries.
      seconds: time for all of it.

    Raises:
      RequestError: the last one.
    """
    deadline = time.monotonic() + seconds
    pause, retries = BACKOFF, asked.retries
    while True:
        try:
            return ask(deadline)
        except RequestError as error:
            is_late = time.monotonic() + pause >= deadline
            if error.kind not in _NOT_BEGUN or is_late or not retries:
                raise
        time.sleep(pause)
        pause, retries = min(2 * pause, LONGEST_BACKOFF), retries - 1


def other_protocol(spoken: str, other: str, asked: Asked) -> RequestError:
    """Returns the error of a port of another protocol."""
    said = (
        f"does not speak {spoken}; if it is the server's port for the other "
        f"protocol, ask with --protocol={other}"
    )
    return RequestError(PROTOCOL, said, asked)


def no_detections(asked: Asked) -> RequestError:
    """Returns the error of an answer without the four outputs."""
    return RequestError(SIGNATURE, _NO_DETECTIONS, asked)


def wait_until_available(
    client: Any, asked: Asked, seconds: float = 0.0
) -> None:
    """Waits until a model can be asked and takes encoded images.

    Args:
      client: client with `states` and `signatures`.
      asked: the model.
      seconds: time after which it is given up; 0 asks once.

    Raises:
      RequestError: the last error.
    """
    deadline = time.monotonic() + seconds
    timeout = min(asked.timeout, seconds or asked.timeout)
    while True:
        try:
            _check_states(client.states(timeout), asked)
            break
        except RequestError as error:
            left = deadline - time.monotonic() - _POLL
            if error.kind not in _PASSING or not seconds:
                raise
            # Less time would only turn what was wrong into a lack of time.
            if left < _POLL:
                raise _waited_for(error, asked, seconds) from None
        time.sleep(_POLL)
        timeout = min(asked.timeout, left)
    _check_signature(client.signatures(), asked)


def _waited_for(error, asked, seconds):
    """Returns the error at the end, which is that of --wait if there is no
    answer."""
    if error.kind != "DEADLINE_EXCEEDED":
        return error
    said = f"{asked.server} has not answered within so many seconds"
    return RequestError(WAITED, f"--wait={seconds:g}: {said}", asked)


def _check_states(states: Mapping[str, str], asked: Asked) -> None:
    if "AVAILABLE" not in states.values():
        told = ", ".join(f"version {k}: {x}" for k, x in states.items())
        raise RequestError(LOADING, told or "no version", asked)


def _check_signature(signatures: Mapping[str, Signature], asked: Asked) -> None:
    """Refuses what is not from encoded images to detections."""
    name, said = asked.signature_name, "the model has no such signature"
    fitting = [
        each
        for each, (inputs, outputs) in sorted(signatures.items())
        if inputs == INPUTS and outputs >= {*OUTPUTS}
    ]
    if name in fitting:
        return
    if name in signatures:
        inputs = sorted(signatures[name].inputs.items())
        types = " and ".join(map(" ".join, inputs))
        said = f"takes {types}, not encoded images alone"
        if signatures[name].inputs == INPUTS:
            said = _NO_DETECTIONS
    said += f"; choose of {', '.join(fitting) or 'another model'}"
    raise RequestError(SIGNATURE, said, asked)
