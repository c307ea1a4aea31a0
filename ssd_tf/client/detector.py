"""A detector whose predict asks a TensorFlow Serving server."""

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ssd_tf import command
from ssd_tf.client.errors import Asked, RequestError
from ssd_tf.client.rest import RestClient
from ssd_tf.command import UserError
from ssd_tf.detect import detectors
from ssd_tf.detect.detectors import ENCODED, Detector
from ssd_tf.detect.results import Detections

if TYPE_CHECKING:
    from ssd_tf.detect.reading import Picture

_URL = re.compile(
    r"(?P<scheme>http|grpc)://(?P<server>[^/]+)(/v1/models)?/(?P<name>[^/:]+)"
    r"(/versions/(?P<version>[1-9]\d*))?/?"
)


def load_detector(path: str | os.PathLike, **options: Any) -> Detector:
    """Loads a detector from a path, or connects to a server by its URL.

    Args:
      path: see `detect.detectors.load_detector`; or the URL of a model,
        `http://localhost:8501/v1/models/NAME` (REST) or
        `grpc://localhost:8500/NAME`, both also with `/versions/7`.
      **options: arguments of `detect.detectors.load_detector`; of a server
        `names` alone: class names, class 1 first.

    Raises:
      UserError: there is no detector, or it cannot be run here.
    """
    if "://" not in str(path):
        return detectors.load_detector(path, **options)
    parts = _URL.fullmatch(str(path))
    if not parts:
        raise UserError(
            f"{path}: expected http://HOST:8501/v1/models/NAME or "
            "grpc://HOST:8500/NAME"
        )
    version = int(parts["version"]) if parts["version"] else None
    asked = Asked(parts["server"], parts["name"], version)
    protocol = "rest" if parts["scheme"] == "http" else "grpc"
    return connect(asked, protocol, **options)


def connect(
    asked: Asked, protocol: str = "rest", names: Sequence[str] | None = None
) -> "ServerDetector":
    """Returns the detector that asks a server.

    Args:
      asked: the model.
      protocol: "rest" or "grpc".
      names: class names, class 1 first.

    Raises:
      UserError: the server is not HOST:PORT, or gRPC's packages are missing.
    """
    client = _client(asked, protocol)
    return ServerDetector(
        lambda batch: client.predict(batch["image"]),
        ENCODED,
        {
            "kind": "server",
            "checkpoint": f"{protocol}://{asked.server}/{asked.model_name}",
        },
        None if names is None else tuple(names),
        client=client,
    )


def _client(asked, protocol):
    if protocol == "rest":
        return RestClient(asked)
    try:
        command.load_tensorflow()
    except ImportError as error:
        raise UserError(
            f"--protocol=grpc: needs TensorFlow ({error}); --protocol=rest "
            "does not"
        ) from error
    from ssd_tf.client.grpc import GrpcClient

    return GrpcClient(asked)


@dataclasses.dataclass(frozen=True, eq=False)
class ServerDetector(Detector):
    """A detector of a server; an image that it refuses fails alone."""

    client: Any = None  # RestClient or GrpcClient

    def detect(
        self, pictures: Sequence["Picture"]
    ) -> list[Detections | RequestError]:
        """Detects on prepared pictures, in one request.

        A server that cannot decode an image refuses its whole batch; that is
        asked once more, image by image.

        Returns:
          Detections, or the error of an image that was refused.

        Raises:
          RequestError: there is no answer for another reason.
          UserError: a class without name was found.
        """
        try:
            return self._ask(pictures)
        except RequestError as error:
            if error.kind != "INVALID_ARGUMENT":
                raise
            if len(pictures) == 1:
                return [error]
        found = [self._ask_one(picture) for picture in pictures]
        errors = {str(x): x for x in found if isinstance(x, RequestError)}
        # All refused for one reason: by REST a broken model is reported as a
        # bad image is.
        if len(errors) == 1 and not any(
            isinstance(x, Detections) for x in found
        ):
            raise errors.popitem()[1]
        return found

    def _ask(self, pictures):
        found = super().detect(pictures)
        for each in found:
            highest = max(each.classes, default=0)
            if self.names and highest > len(self.names):
                raise UserError(
                    f"--labels: has {len(self.names)} names, but the model has "
                    f"found class {highest}; take the model's own file"
                )
        return found

    def _ask_one(self, picture):
        try:
            (found,) = self._ask([picture])
        except RequestError as error:
            if error.kind != "INVALID_ARGUMENT":
                raise
            return error
        return found
