"""The gRPC of the stand-in server, with tensorflow-serving-api's stubs."""

import concurrent.futures
import os

import tensorflow as tf
from stand_in_model import DEFAULT, Refusal

# Read when gRPC is imported. A test starts processes beside the server, which
# its preparations for a fork would end.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


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
