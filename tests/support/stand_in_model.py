"""The model of the stand-in server, and how badly it behaves."""

import dataclasses
import pathlib
import threading

import tensorflow as tf
from tensorflow.core.protobuf import error_codes_pb2

DEFAULT = "serving_default"


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, message, code="INVALID_ARGUMENT"):
        super().__init__(message)
        self.code = code


@dataclasses.dataclass
class Behaviour:
    """How badly it behaves, and what it has seen; tests may change it."""

    loading_answers: int = 0  # times that the model is said to be loading
    failures: int = 0  # predictions that fail ...
    failure_code: str = "UNAVAILABLE"  # ... in this way
    delay: float = 0.0  # seconds before each prediction
    answers: int | None = None  # predictions before all fail; None: no end
    max_batch_size: int | None = None
    # Of REST: predictions that end the connection instead, seconds between
    # the bytes of an answer, and answers of a proxy in its place.
    drops: int = 0
    trickle: float = 0.0
    pages: int = 0
    page_status: int = 503
    predictions: int = 0
    connections: int = 0  # of REST


class Served:
    """A model with its name and version."""

    def __init__(self, export_dir, name, behaviour):
        self.name, self.behaviour = name, behaviour
        self.stopped, self._lock = threading.Event(), threading.Lock()
        folders = pathlib.Path(export_dir).iterdir()
        self.version = max(int(x.name) for x in folders if x.name.isdecimal())
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            loaded = tf.compat.v1.saved_model.load(
                self._session, ["serve"], f"{export_dir}/{self.version}"
            )
        self.signatures = loaded.signature_def

    def states(self, name, version):
        """Number of each version -> its state."""
        if name != self.name or version not in (None, self.version):
            what = "any versions" if version is None else f"version {version}"
            message = f"Could not find {what} of model {name}"
            raise Refusal(message, "NOT_FOUND")
        with self._lock:
            loading = self.behaviour.loading_answers > 0
            self.behaviour.loading_answers -= loading
        return {self.version: "LOADING" if loading else "AVAILABLE"}

    def check_loaded(self, name, version):
        known = name == self.name and version in (None, self.version)
        if not known or self.behaviour.loading_answers > 0:
            asked = (
                f"Latest({name})"
                if version is None
                else f"Specific({name}, {version})"
            )
            message = f"Servable not found for request: {asked}"
            raise Refusal(message, "NOT_FOUND")

    def predict(self, key, inputs, output_filter=()):
        """Named arrays -> named arrays."""
        self._misbehave()
        if key not in self.signatures:
            message = f'Serving signature key "{key}" not found.'
            raise Refusal(message, "FAILED_PRECONDITION")
        signature = self.signatures[key]
        self._check_inputs(signature, inputs)
        for name in output_filter:
            if name not in signature.outputs:
                raise Refusal(
                    f"output tensor alias not found in signature: {name}"
                )
        names = output_filter or signature.outputs
        wanted = {name: signature.outputs[name].name for name in names}
        feed = {signature.inputs[k].name: x for k, x in inputs.items()}
        try:
            return self._session.run(wanted, feed)
        except tf.errors.OpError as error:
            # Python's words above those of the server.
            said = error.message.removeprefix("Graph execution error:").strip()
            code = error_codes_pb2.Code.Name(error.error_code)
            raise Refusal(said, code) from error

    def _check_inputs(self, signature, inputs):
        if len(inputs) != len(signature.inputs):
            raise Refusal(
                "input size does not match signature: "
                f"{len(inputs)}!={len(signature.inputs)}"
            )
        most = self.behaviour.max_batch_size
        for name, value in inputs.items():
            if name not in signature.inputs:
                raise Refusal(
                    f"input tensor alias not found in signature: {name}. "
                    "Inputs expected to be in the set "
                    f"{{{','.join(signature.inputs)}}}."
                )
            found = tf.as_dtype(value.dtype).name
            wanted = tf.as_dtype(signature.inputs[name].dtype).name
            if found != wanted:
                raise Refusal(
                    f"Expects arg[0] to be {wanted} but {found} is provided"
                )
            if most is not None and len(value) > most:
                raise Refusal(
                    f"Task size {len(value)} is larger than maximum input "
                    f"batch size {most}"
                )

    def _misbehave(self):
        behaviour = self.behaviour
        with self._lock:
            behaviour.predictions += 1
            end = behaviour.answers
            over = end is not None and behaviour.predictions > end
            fails = behaviour.failures > 0
            behaviour.failures -= fails
        self.stopped.wait(behaviour.delay)
        if fails or over:
            message = "The batch scheduling queue to which this task was "
            code = behaviour.failure_code
            raise Refusal(f"{message}submitted is full", code)

    def takes(self, what):
        """Whether one more of a number of misbehaviours is left."""
        with self._lock:
            left = getattr(self.behaviour, what)
            setattr(self.behaviour, what, max(0, left - 1))
        return left > 0
