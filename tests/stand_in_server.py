"""A stand-in for TensorFlow Serving: its rules around a real SavedModel.

    python tests/stand_in_server.py EXPORT_DIR --name=ssd

prints {"rest": PORT, "grpc": PORT} when it answers. The model runs in a TF1
session, as there. Written, without the package, from TensorFlow Serving's
sources (json_tensor.cc, predict_util.cc, http_rest_api_util.cc); it has
neither their parser, nor the batching, nor the loading of versions.
"""

import argparse
import base64
import concurrent.futures
import contextlib
import dataclasses
import http.server
import importlib.util
import json
import pathlib
import re
import threading

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import error_codes_pb2

DEFAULT = "serving_default"
HTTP_STATUS = {
    **dict.fromkeys(
        ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"), 400
    ),
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
PREDICT_PATH = r"/v1/models/([^/:]+)(?:/versions/(\d+))?:(predict)"
STATUS_PATH = r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+))?(/metadata)?"


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
    max_batch_size: int | None = None
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
        with self._lock:
            self.behaviour.predictions += 1
            fails = self.behaviour.failures > 0
            self.behaviour.failures -= fails
        if fails:
            message = "The batch scheduling queue to which this task was "
            code = self.behaviour.failure_code
            raise Refusal(f"{message}submitted is full", code)
        self.stopped.wait(self.behaviour.delay)


def is_base64(value):
    return isinstance(value, dict) and [*value] == ["b64"]


def tensor(value, info):
    """Nested lists -> an array of the type of an input.

    Raises:
      Refusal: they are ragged, or hold values of another type.
    """
    dtype, shape, inner = tf.as_dtype(info.dtype), [], value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    kind = object if dtype == tf.string else dtype.as_numpy_dtype
    flat = [_value(x, dtype) for x in _leaves(value, shape)]
    found = np.empty(len(flat), kind)
    found[:] = flat
    return found.reshape(shape)


def _leaves(value, shape):
    if not isinstance(value, list):
        if shape:
            raise Refusal(f"JSON Value: {value} found at incorrect level")
        return [value]
    if not shape or len(value) != shape[0]:
        raise Refusal(f"Encountered list at unexpected size: {len(value)}")
    return [leaf for each in value for leaf in _leaves(each, shape[1:])]


def _value(value, dtype):
    if dtype == tf.string and is_base64(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except ValueError as error:
            raise Refusal("Unable to base64 decode") from error
    types = (int, float) if dtype.is_floating else int
    types = {tf.string: str, tf.bool: bool}.get(dtype, types)
    is_bool = isinstance(value, bool)
    if not isinstance(value, types) or is_bool != (dtype == tf.bool):
        kind = "Object" if isinstance(value, dict) else type(value).__name__
        raise Refusal(
            f"JSON Value: {json.dumps(value)} Type: {kind} is not of expected "
            f"type: {dtype.name}"
        )
    return value.encode() if dtype == tf.string else value


def inputs_of(request, infos):
    """Arrays of "instances" (rows) or of "inputs" (columns)."""
    if "inputs" in request:
        columns = request["inputs"]
        if not isinstance(columns, dict) or is_base64(columns):
            columns = dict.fromkeys(_only(infos), columns)
        for name in infos:
            if name not in columns:
                raise Refusal(f"Missing named input: {name} in 'inputs' object")
        return {name: tensor(columns[name], infos[name]) for name in infos}
    rows = request["instances"]
    if not isinstance(rows, list) or not rows:
        raise Refusal("Excepting 'instances' to be an list/array with values")
    if not isinstance(rows[0], dict) or is_base64(rows[0]):
        rows = [dict.fromkeys(_only(infos), row) for row in rows]
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or set(row) != set(infos):
            raise Refusal(
                f"Failed to process element: {number} of 'instances' list. "
                f"keys must be equal to: {','.join(infos)}"
            )
    return {
        name: tensor([row[name] for row in rows], infos[name]) for name in infos
    }


def _only(infos):
    if len(infos) > 1:
        raise Refusal("expecting objects as multiple input tensors required")
    return infos


def as_json(name, array):
    """Lists; floats with as many digits as tell them apart."""
    if array.dtype == object:
        if name.endswith("_bytes"):
            write = np.frompyfunc(
                lambda x: {"b64": base64.b64encode(x).decode()}, 1, 1
            )
        else:
            write = np.frompyfunc(lambda x: x.decode("utf-8", "replace"), 1, 1)
        return write(array).tolist()
    if array.dtype in (np.float32, np.float64):
        return array.astype(str).astype(float).tolist()
    if array.dtype.kind not in "iub" or array.dtype == np.uint16:
        raise Refusal(
            f"Failed to write JSON value for tensor type: {array.dtype}"
        )
    return array.tolist()


def answer_of(outputs, by_rows):
    """ "predictions", a value or object a row, or "outputs"."""
    if by_rows:
        for name, array in outputs.items():
            if not np.ndim(array):
                raise Refusal(f"Tensor name: {name} has no shape information")
        if len({len(array) for array in outputs.values()}) > 1:
            raise Refusal("Tensors have inconsistent batch size")
    columns = {
        name: as_json(name, np.asarray(x)) for name, x in outputs.items()
    }
    if len(columns) == 1:
        (columns,) = columns.values()
    elif by_rows:
        rows = zip(*columns.values(), strict=True)
        columns = [dict(zip(columns, row, strict=True)) for row in rows]
    return {"predictions" if by_rows else "outputs": columns}


class RestHandler(http.server.BaseHTTPRequestHandler):
    """One connection; `serve` sets what is `served`."""

    protocol_version = "HTTP/1.1"  # connections stay open
    disable_nagle_algorithm = True
    served: Served

    def setup(self):
        super().setup()
        self.served.behaviour.connections += 1

    def log_message(self, *_):
        """Says nothing."""

    def do_GET(self):
        self._answer(self._get)

    def do_POST(self):
        self._answer(self._post)

    def _answer(self, make):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            status, content = 200, make(body)
        except Refusal as refusal:
            status = HTTP_STATUS.get(refusal.code, 500)
            content = {"error": str(refusal)}
        data = json.dumps(content, indent=1).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _matched(self, pattern):
        match = re.fullmatch(pattern, self.path, re.IGNORECASE)
        if not match or not match[1]:
            raise Refusal(f"Malformed request: {self.command} {self.path}")
        return match[1], int(match[2]) if match[2] else None, match[3]

    def _get(self, _):
        name, version, metadata = self._matched(STATUS_PATH)
        if metadata:
            return self._metadata(name, version)
        status = {"error_code": "OK", "error_message": ""}
        return {
            "model_version_status": [
                {"version": str(number), "state": state, "status": status}
                for number, state in self.served.states(name, version).items()
            ]
        }

    def _metadata(self, name, version):
        self.served.check_loaded(name, version)
        signatures = {
            key: json_format.MessageToDict(x, preserving_proto_field_name=True)
            for key, x in self.served.signatures.items()
        }
        return {
            "model_spec": {"name": name, "version": str(self.served.version)},
            "metadata": {"signature_def": {"signature_def": signatures}},
        }

    def _post(self, body):
        name, version, _ = self._matched(PREDICT_PATH)
        try:
            request = json.loads(body)
        except ValueError as error:
            raise Refusal(f"JSON Parse error: {error}") from error
        if not isinstance(request, dict):
            raise Refusal("JSON Value: Is not object")
        self.served.check_loaded(name, version)
        key = request.get("signature_name") or DEFAULT
        if key not in self.served.signatures:
            message = f'Serving signature name: "{key}" not found in signature'
            raise Refusal(f"{message} def")
        by_rows = "instances" in request
        if by_rows == ("inputs" in request):
            raise Refusal("expecting only one of 'inputs' or 'instances' keys")
        inputs = inputs_of(request, self.served.signatures[key].inputs)
        return answer_of(self.served.predict(key, inputs), by_rows)


def _asked(spec):
    return spec.name, spec.version.value if spec.HasField("version") else None


def predict_grpc(served, request):
    """A PredictRequest -> a PredictResponse."""
    from tensorflow_serving.apis import predict_pb2

    served.check_loaded(*_asked(request.model_spec))
    inputs = {name: tf.make_ndarray(x) for name, x in request.inputs.items()}
    key = request.model_spec.signature_name or DEFAULT
    outputs = served.predict(key, inputs, list(request.output_filter))
    answer = predict_pb2.PredictResponse()
    for name, array in outputs.items():
        answer.outputs[name].CopyFrom(tf.make_tensor_proto(array))
    return answer


def metadata_grpc(served, request):
    """A GetModelMetadataRequest -> a GetModelMetadataResponse."""
    from tensorflow_serving.apis import get_model_metadata_pb2

    served.check_loaded(*_asked(request.model_spec))
    if list(request.metadata_field) != ["signature_def"]:
        raise Refusal(f"Metadata field {[*request.metadata_field]}")
    found = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in served.signatures.items():
        found.signature_def[name].CopyFrom(signature)
    answer = get_model_metadata_pb2.GetModelMetadataResponse()
    answer.model_spec.name = served.name
    answer.model_spec.version.value = served.version
    answer.metadata["signature_def"].Pack(found)
    return answer


def status_grpc(served, request):
    """A GetModelStatusRequest -> a GetModelStatusResponse."""
    from tensorflow_serving.apis import get_model_status_pb2

    answer = get_model_status_pb2.GetModelStatusResponse()
    states = served.states(*_asked(request.model_spec))
    for version, state in states.items():
        answer.model_version_status.add(version=version, state=state)
    return answer


def start_grpc(served, port=0):
    """Starts a server in threads of this process; it and its port."""
    import grpc
    from tensorflow_serving.apis import (
        model_service_pb2_grpc,
        prediction_service_pb2_grpc,
    )

    def method(function):
        def answer(_, request, context):
            try:
                return function(served, request)
            except Refusal as refusal:
                context.abort(grpc.StatusCode[refusal.code], str(refusal))

        return answer

    class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
        Predict = method(predict_grpc)
        GetModelMetadata = method(metadata_grpc)

    class Models(model_service_pb2_grpc.ModelServiceServicer):
        GetModelStatus = method(status_grpc)

    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(8),
        options=[("grpc.max_receive_message_length", -1)],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Predictions(), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, port


def start_rest(served, port=0):
    """Starts a server in threads of this process; it and its port."""
    handler = type("Handler", (RestHandler,), {"served": served})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, server.server_port


@contextlib.contextmanager
def running(served, rest_port=0, grpc_port=0):
    """Ports of both; only that of REST without tensorflow-serving-api."""
    ports = {}
    served.stopped.clear()
    with contextlib.ExitStack() as stack:
        rest, ports["rest"] = start_rest(served, rest_port)
        stack.callback(rest.server_close)
        stack.callback(rest.shutdown)
        if importlib.util.find_spec("tensorflow_serving"):
            grpc, ports["grpc"] = start_grpc(served, grpc_port)
            stack.callback(lambda: grpc.stop(None).wait())
        stack.callback(served.stopped.set)
        yield ports


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("export_dir")
    parser.add_argument("--name", default="ssd")
    parser.add_argument("--rest_port", type=int, default=0)
    parser.add_argument("--grpc_port", type=int, default=0)
    for field in dataclasses.fields(Behaviour):
        kind = type(field.default) if field.default is not None else int
        parser.add_argument(f"--{field.name}", type=kind, default=field.default)
    flags = vars(parser.parse_args())
    export_dir, name, rest_port, grpc_port = (
        flags.pop(key)
        for key in ("export_dir", "name", "rest_port", "grpc_port")
    )
    served = Served(export_dir, name, Behaviour(**flags))
    with running(served, rest_port, grpc_port) as ports:
        print(json.dumps(ports), flush=True)
        served.stopped.wait()


if __name__ == "__main__":
    main()
