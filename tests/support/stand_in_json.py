"""The JSON of TensorFlow Serving's REST (json_tensor.cc), for the stand-in."""

import base64
import json

import numpy as np
import tensorflow as tf
from stand_in_model import Refusal


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
