"""Asks TensorFlow Serving by gRPC; importing it needs the extra `serving`.

What is asked and what can go wrong: `ssd_tf.client.errors`.
"""

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from ssd_tf import command
from ssd_tf.client.errors import (
    BACKOFF,
    BROKEN,
    INPUT,
    LONGEST_BACKOFF,
    OUTPUTS,
    PROTOCOL,
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

# Of gRPC's words, in which alone it tells these apart: there is no connection,
# or it broke. A proxy in between has the second kind, too.
_UNREACHABLE = re.compile("failed to connect|resolving|resolution")
_BROKEN = re.compile("closed|removed|reset|broken pipe|goaway|ping", re.I)
_OPTIONS = [
    # Messages of any size.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Whoever waits for a server wants to know soon that it is there.
    ("grpc.initial_reconnect_backoff_ms", round(1000 * BACKOFF)),
    ("grpc.max_reconnect_backoff_ms", round(1000 * LONGEST_BACKOFF)),
]


def _api(name: str):
    return command.import_extra(f"tensorflow_serving.apis.{name}", "serving")


metadata_pb2 = _api("get_model_metadata_pb2")
model_service_pb2_grpc = _api("model_service_pb2_grpc")
predict_pb2 = _api("predict_pb2")
prediction_service_pb2_grpc = _api("prediction_service_pb2_grpc")
status_pb2 = _api("get_model_status_pb2")


class GrpcClient:
    """A model of a server; for any number of threads."""

    def __init__(self, asked: Asked):
        """Connects with the first request.

        Raises:
          UserError: the server is not HOST:PORT.
        """
        split(asked.server)
        self._asked = asked
        channel = grpc.insecure_channel(asked.server, _OPTIONS)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(
            channel
        )
        self._models = model_service_pb2_grpc.ModelServiceStub(channel)

    def prepare(self, images: Sequence[bytes]) -> Callable[[], Any]:
        """Returns the call that asks for detections; see
        `RestClient.prepare`.
        """
        request = predict_pb2.PredictRequest(output_filter=OUTPUTS)
        self._name(request).signature_name = self._asked.signature_name
        request.inputs[INPUT].CopyFrom(
            tf.make_tensor_proto(list(images), tf.string, [len(images)])
        )
        return lambda: self._detections(
            self._ask(self._predictions.Predict, request)
        )

    def predict(self, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Returns detections on encoded images; see `RestClient.predict`.

        Raises:
          RequestError: no answer, or another one.
        """
        return self.prepare(images)()

    def states(self, seconds: float | None = None) -> dict[str, str]:
        """Returns the state of each version; see `RestClient.states`."""
        request = status_pb2.GetModelStatusRequest()
        self._name(request)
        answer = self._ask(self._models.GetModelStatus, request, seconds)
        name_of = status_pb2.ModelVersionStatus.State.Name
        return {
            str(each.version): name_of(each.state)
            for each in answer.model_version_status
        }

    def signatures(self) -> dict[str, Signature]:
        """Returns signatures by their names."""
        request = metadata_pb2.GetModelMetadataRequest(
            metadata_field=["signature_def"]
        )
        self._name(request)
        answer = self._ask(self._predictions.GetModelMetadata, request)
        found = metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(found)
        return {
            name: Signature(
                {
                    key: types_pb2.DataType.Name(info.dtype)
                    for key, info in each.inputs.items()
                },
                set(each.outputs),
            )
            for name, each in found.signature_def.items()
        }

    def wait_until_available(self, seconds: float = 0.0) -> None:
        """Waits for the model; see `errors.wait_until_available`."""
        wait_until_available(self, self._asked, seconds)

    def _name(self, request: Any) -> Any:
        """Names the model in a request; returns the part that does."""
        spec = request.model_spec
        spec.name = self._asked.model_name
        if self._asked.version is not None:
            spec.version.value = self._asked.version
        return spec

    def _detections(self, answer):
        try:
            return {
                name: tf.make_ndarray(answer.outputs[name]).astype(dtype)
                for name, dtype in OUTPUTS.items()
            }
        except (TypeError, ValueError) as error:
            raise no_detections(self._asked) from error

    def _ask(
        self,
        method: Callable[..., Any],
        request: Any,
        seconds: float | None = None,
    ) -> Any:
        def ask(deadline: float) -> Any:
            try:
                return method(request, timeout=deadline - time.monotonic())
            except grpc.RpcError as error:
                code, said = error.code().name, error.details() or ""
                raise _explained(code, said, self._asked) from error

        return ask_again(ask, self._asked, seconds or self._asked.timeout)


def _explained(code: str, said: str, asked: Asked) -> RequestError:
    """Returns the error of an answer, or of none, which gRPC does not tell
    apart."""
    if code == "UNAVAILABLE":
        if "HTTP/2" in said or "http1" in said:
            return other_protocol("gRPC", "rest", asked)
        if _UNREACHABLE.search(said):
            said = said.rpartition(": ")[2].rstrip("]")
            return RequestError(UNREACHABLE, said, asked)
        if _BROKEN.search(said):
            return RequestError(BROKEN, said, asked)
    if code == "UNIMPLEMENTED":
        said = f"speaks gRPC, but is no TensorFlow Serving ({said})"
        return RequestError(PROTOCOL, said, asked)
    return RequestError(code, said, asked)
