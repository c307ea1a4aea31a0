"""The stand-in has TensorFlow Serving's rules of REST (json_tensor.cc)."""

import base64
import json

import numpy as np
import pytest
import stand_in_server
import tensorflow as tf
import urllib3
from stand_in_json import answer_of, as_json, inputs_of
from stand_in_model import Behaviour, Refusal, Served
from stand_in_rest import HTTP_STATUS
from tensorflow.core.protobuf import meta_graph_pb2

B64 = {"b64": base64.b64encode(b"\xff\x00").decode()}


class Small(tf.Module):
    """Signatures of every kind but a detector's."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def echo(self, text):
        return {
            "echo": text,
            "echo_bytes": text,
            "length": tf.strings.length(text),
        }

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.uint8, "pixels")])
    def double(self, pixels):
        return {"doubled": 2 * pixels}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.float32, "a"),
            tf.TensorSpec([None], tf.int32, "b"),
        ]
    )
    def total(self, a, b):
        return {"each": a + tf.cast(b, tf.float32), "sum": tf.reduce_sum(a)}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder, small = tmp_path_factory.mktemp("small"), Small()
    signatures = {
        "serving_default": small.echo,
        "double": small.double,
        "total": small.total,
    }
    for version in ("2", "10"):
        tf.saved_model.save(small, str(folder / version), signatures)
    return Served(folder, "m", Behaviour())


@pytest.fixture(scope="module")
def ask(served):
    """Status and JSON of a path; with a body it is posted."""
    with stand_in_server.running(served) as ports:
        pool = urllib3.HTTPConnectionPool("127.0.0.1", ports["rest"])

        def ask(path, body=None):
            method = "GET" if body is None else "POST"
            if isinstance(body, dict):
                body = json.dumps(body)
            answer = pool.request(method, path, body=body)
            return answer.status, json.loads(answer.data)

        yield ask
        pool.close()


def infos(**types):
    return {
        name: meta_graph_pb2.TensorInfo(dtype=dtype.as_datatype_enum)
        for name, dtype in types.items()
    }


TEXT = {"text": tf.string}
BOTH = {"a": tf.float32, "b": tf.int32}


@pytest.mark.parametrize(
    "request_, types, expected",
    [
        ({"instances": [B64]}, TEXT, {"text": [b"\xff\x00"]}),
        ({"instances": [{"text": B64}]}, TEXT, {"text": [b"\xff\x00"]}),
        ({"instances": ["é", "b"]}, TEXT, {"text": ["é".encode(), b"b"]}),
        ({"instances": [[[1, 2]]]}, {"x": tf.uint8}, {"x": [[[1, 2]]]}),
        ({"instances": [1, 2.5]}, {"x": tf.float32}, {"x": [1, 2.5]}),
        (
            {"instances": [{"a": 1, "b": 2}, {"b": 4, "a": 3}]},
            BOTH,
            {"a": [1, 3], "b": [2, 4]},
        ),
        ({"inputs": [B64, "b"]}, TEXT, {"text": [b"\xff\x00", b"b"]}),
        ({"inputs": {"text": [B64]}}, TEXT, {"text": [b"\xff\x00"]}),
        ({"inputs": B64}, TEXT, {"text": b"\xff\x00"}),
        (
            {"inputs": {"a": [1], "b": [[2]]}},
            BOTH,
            {"a": [1], "b": [[2]]},
        ),
        ({"inputs": [True]}, {"x": tf.bool}, {"x": [True]}),
    ],
)
def test_requests(request_, types, expected):
    found = inputs_of(request_, infos(**types))
    assert {name: x.tolist() for name, x in found.items()} == expected
    for name, dtype in types.items():
        assert tf.as_dtype(found[name].dtype) == dtype


@pytest.mark.parametrize(
    "request_, types, message",
    [
        ({"instances": []}, TEXT, "list/array with values"),
        ({"instances": "a"}, TEXT, "list/array with values"),
        ({"instances": [1]}, TEXT, "Type: int is not of expected type: string"),
        (
            {"instances": [B64]},
            {"x": tf.uint8},
            "Type: Object is not of expected type: uint8",
        ),
        ({"instances": [1.5]}, {"x": tf.int32}, "expected type: int32"),
        ({"instances": [True]}, {"x": tf.int32}, "expected type: int32"),
        ({"instances": [{"b64": "-_8="}]}, TEXT, "base64 decode"),
        ({"instances": [[1], [1, 2]]}, {"x": tf.int32}, "unexpected size: 2"),
        ({"instances": [[1], 2]}, {"x": tf.int32}, "incorrect level"),
        ({"instances": [1, 2]}, BOTH, "multiple input tensors"),
        ({"instances": [{"a": 1}]}, BOTH, "keys must be equal to: a,b"),
        (
            {"instances": [{"a": 1, "b": 2, "c": 3}]},
            BOTH,
            "keys must be equal to: a,b",
        ),
        ({"instances": [{"text": "a"}, "b"]}, TEXT, "element: 1"),
        ({"inputs": [1]}, BOTH, "multiple input tensors"),
        ({"inputs": {"a": [1]}}, BOTH, "Missing named input: b"),
    ],
)
def test_requests_that_are_refused(request_, types, message):
    with pytest.raises(Refusal, match=message) as raised:
        inputs_of(request_, infos(**types))
    assert raised.value.code == "INVALID_ARGUMENT"


def test_answers_by_row_and_by_column():
    outputs = {"a": np.array([[1.0], [2.0]]), "b": np.array([3, 4])}
    assert answer_of(outputs, by_rows=True) == {
        "predictions": [{"a": [1.0], "b": 3}, {"a": [2.0], "b": 4}]
    }
    assert answer_of(outputs, by_rows=False) == {
        "outputs": {"a": [[1.0], [2.0]], "b": [3, 4]}
    }
    only = {"a": outputs["a"]}
    assert answer_of(only, by_rows=True) == {"predictions": [[1.0], [2.0]]}
    assert answer_of(only, by_rows=False) == {"outputs": [[1.0], [2.0]]}
    assert answer_of({"a": np.float32(0.5)}, False) == {"outputs": 0.5}


@pytest.mark.parametrize(
    "outputs, message",
    [
        ({"a": np.array([1]), "b": np.float32(1)}, "b has no shape"),
        ({"a": np.array([1]), "b": np.array([1, 2])}, "inconsistent batch"),
        ({"a": np.array([1], np.float16)}, "Failed to write JSON value"),
    ],
)
def test_answers_that_have_no_rows(outputs, message):
    with pytest.raises(Refusal, match=message):
        answer_of(outputs, by_rows=True)


def test_floats_have_the_digits_that_tell_them_apart():
    values = np.array([0.2, 1 / 3, 9e6, 3e-5, 1.0], np.float32)
    written = json.dumps(as_json("x", values))
    assert written == "[0.2, 0.33333334, 9000000.0, 3e-05, 1.0]"
    assert np.array(json.loads(written), np.float32).tolist() == values.tolist()


def test_only_outputs_called_bytes_are_base64():
    values = np.array([b"\xff\x00"], object)
    assert as_json("image_bytes", values) == [B64]
    assert as_json("image", np.array([b"abc"], object)) == ["abc"]


def test_status_and_metadata(ask):
    version = {
        "version": "10",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    known = (200, {"model_version_status": [version]})
    assert ask("/v1/models/m") == ask("/V1/Models/m/versions/10") == known
    status, metadata = ask("/v1/models/m/metadata")
    assert status == 200 and metadata["model_spec"]["version"] == "10"
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    (text,) = signatures["serving_default"]["inputs"].values()
    assert text["dtype"] == "DT_STRING"
    assert text["tensor_shape"]["dim"] == [{"size": "-1"}]


@pytest.mark.parametrize(
    "path, body, status, message",
    [
        ("/v1/models/x", None, 404, "any versions of model x"),
        ("/v1/models/m/versions/2", None, 404, "version 2 of model m"),
        ("/v1/models/x/metadata", None, 404, "request: Latest(x)"),
        ("/v1/models", None, 400, "Malformed request: GET /v1/models"),
        ("/", None, 400, "Malformed request: GET /"),
        ("/v1/models/m", {}, 400, "Malformed request: POST"),
        ("/v1/models/m:predict", "{", 400, "JSON Parse error"),
        ("/v1/models/m:predict", "[]", 400, "Is not object"),
        ("/v1/models/m:predict", {}, 400, "only one of"),
        (
            "/v1/models/m:predict",
            {"inputs": [], "instances": []},
            400,
            "only one of",
        ),
        (
            "/v1/models/m/versions/3:predict",
            {"instances": ["a"]},
            404,
            "Specific(m, 3)",
        ),
        (
            "/v1/models/m:predict",
            {"instances": ["a"], "signature_name": "x"},
            400,
            'Serving signature name: "x" not found',
        ),
        (
            "/v1/models/m:predict",
            {"instances": [{"a": 1, "b": 1}], "signature_name": "total"},
            400,
            "sum has no shape information",
        ),
    ],
)
def test_errors(ask, path, body, status, message):
    found, content = ask(path, body)
    assert found == status and [*content] == ["error"]
    assert message in content["error"]


def test_predictions(ask):
    path = "/v1/models/m:predict"
    assert ask(path, {"instances": [B64["b64"], "ab"]}) == (
        200,
        {
            "predictions": [
                {
                    "echo": text,
                    "echo_bytes": {
                        "b64": base64.b64encode(text.encode()).decode()
                    },
                    "length": len(text),
                }
                for text in (B64["b64"], "ab")
            ]
        },
    )
    pixels = {"signature_name": "double", "inputs": {"pixels": [[1, 2]]}}
    assert ask(path, pixels) == (200, {"outputs": [[2, 4]]})
    total = {"signature_name": "total", "inputs": {"a": [1, 2], "b": [3, 4]}}
    expected = {"outputs": {"each": [4.0, 6.0], "sum": 3.0}}
    assert ask(path, total) == (200, expected)


@pytest.mark.parametrize("code, status", HTTP_STATUS.items())
def test_codes(served, ask, code, status):
    served.behaviour.failures = 1
    served.behaviour.failure_code = code
    found, _ = ask("/v1/models/m:predict", {"instances": ["a"]})
    assert found == status
    assert ask("/v1/models/m:predict", {"instances": ["a"]})[0] == 200


def test_a_filter_of_outputs(served):
    text = {"text": np.array([b"abc"], object)}
    (name, length) = served.predict(
        "serving_default", text, ["length"]
    ).popitem()
    assert name == "length" and length.tolist() == [3]
    with pytest.raises(Refusal, match="output tensor alias not found"):
        served.predict("serving_default", text, ["width"])


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({}, "input size does not match signature: 0!=1"),
        ({"x": np.zeros(1)}, "alias not found in signature: x. .*{text}"),
        ({"text": np.zeros(1, np.uint8)}, "to be string but uint8 is"),
    ],
)
def test_inputs_that_a_signature_does_not_have(served, inputs, message):
    with pytest.raises(Refusal, match=message):
        served.predict("serving_default", inputs)
