"""TFLite metadata of a detector: what mobile samples and MediaPipe read.

Tables are written by the numbers of their fields in TFLite's
metadata_schema.fbs: the packages that have generated code for it bring their
own OpenCV (mediapipe) or are no longer kept (tflite-support).
"""

from collections.abc import Callable, Sequence
from typing import Any

import flatbuffers

from ssd_tf.detect.description import LABEL_MAP, MODEL_FILE

_IDENTIFIER = b"M001"
# How these fields came to the schema, which readers compare with theirs.
_MIN_PARSER_VERSION = "1.2.0"
# ContentProperties, a union.
_FEATURE, _IMAGE, _BOUNDING_BOX = 1, 2, 3
_RGB, _BOUNDARIES, _NORMALIZATION = 1, 1, 1
# AssociatedFileType.
_DESCRIPTIONS, _VALUE_LABELS = 1, 3

# Adds itself to a builder and returns the offset to refer to it by.
Node = Callable[[flatbuffers.Builder], int]


def build(
    name: str,
    description: str,
    height: int,
    width: int,
    heads: Sequence[str] = (),
) -> bytes:
    """Returns the metadata of a detector.

    Args:
      name, description: for people.
      height, width: of the input, pixels; RGB in 0..255, which the graph
        normalises itself.
      heads: names of the outputs; without, they are those of
        `TFLite_Detection_PostProcess`.

    Returns:
      The buffer `TFLITE_METADATA`. It names the files `LABEL_MAP`
      and `MODEL_FILE`, which have to be packed into the model file.
    """
    inputs = _vector([_input_tensor(height, width)])
    outputs = _heads(heads) if heads else _detections()
    model = _table(
        _text(name),
        _text(description),
        None,
        _vector([_table(None, None, inputs, *outputs)]),
        *[None] * 2,
        _vector(
            [_file(each, _DESCRIPTIONS) for each in (LABEL_MAP, MODEL_FILE)]
        ),
        _text(_MIN_PARSER_VERSION),
    )
    builder = flatbuffers.Builder()
    builder.Finish(model(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _heads(names):
    """Returns the fields of a subgraph from its outputs on.

    A column of the logits is the background's: no list of labels fits them.
    """
    return (_vector([_tensor(name, _feature()) for name in names]),)


def _detections():
    """Returns the same for a model that ends with the op."""
    outputs = [
        # Where left, top, right and bottom are in ymin, xmin, ymax, xmax.
        _tensor("location", _bounding_box(index=(1, 0, 3, 2))),
        _tensor(
            "category", _feature(), files=[_file(LABEL_MAP, _VALUE_LABELS)]
        ),
        _tensor("score", _feature()),
        _tensor("number of detections", _table()),
    ]
    group = _table(
        _text("detection_result"),
        _vector([_text(x) for x in ("location", "category", "score")]),
    )
    return (_vector(outputs), *[None] * 4, _vector([group]))


def _input_tensor(height, width):
    size = _table(_uint(width), _uint(height))
    content = _content(_IMAGE, _table(_byte(_RGB), size))
    normalization = _table(_floats([0.0]), _floats([1.0]))
    unit = _table(_byte(_NORMALIZATION), normalization)
    return _tensor(
        "image",
        content,
        units=[unit],
        stats=_table(_floats([255.0]), _floats([0.0])),
    )


def _tensor(name, content, units=None, stats=None, files=None):
    return _table(
        _text(name),
        None,
        None,
        content,
        _vector(units) if units else None,
        stats,
        _vector(files) if files else None,
    )


def _content(kind, properties):
    return _table(_byte(kind), properties)


def _feature():
    return _content(_FEATURE, _table())


def _bounding_box(index):
    properties = _table(_uints(index), _byte(_BOUNDARIES))
    return _content(_BOUNDING_BOX, properties)


def _file(name, kind):
    return _table(_text(name), None, _byte(kind))


def _text(value: str) -> Node:
    return lambda builder: builder.CreateString(value)


def _uints(values: Sequence[int]) -> Node:
    return _numbers(values, flatbuffers.Builder.PrependUint32)


def _floats(values: Sequence[float]) -> Node:
    return _numbers(values, flatbuffers.Builder.PrependFloat32)


def _numbers(values, prepend):
    def add(builder):
        builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            prepend(builder, value)
        return builder.EndVector()

    return add


def _vector(nodes: Sequence[Node]) -> Node:
    def add(builder):
        offsets = [node(builder) for node in nodes]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    return add


class _Scalar:
    """A number that stands in its table itself."""

    def __init__(self, prepend: Callable[..., None], value: int):
        self.prepend, self.value = prepend, value


def _byte(value: int) -> _Scalar:
    return _Scalar(flatbuffers.Builder.PrependUint8Slot, value)


def _uint(value: int) -> _Scalar:
    return _Scalar(flatbuffers.Builder.PrependUint32Slot, value)


def _table(*fields: Any) -> Node:
    """Returns a table by its fields in order; None leaves one out."""

    def add(builder):
        # Everything a table refers to has to be there before it is begun.
        made = [
            field
            if field is None or isinstance(field, _Scalar)
            else field(builder)
            for field in fields
        ]
        builder.StartObject(len(made))
        for slot, field in enumerate(made):
            if isinstance(field, _Scalar):
                field.prepend(builder, slot, field.value, 0)
            elif field is not None:
                builder.PrependUOffsetTRelativeSlot(slot, field, 0)
        return builder.EndObject()

    return add
