"""The wire format of a .caffemodel, read with protobuf.

The file is a NetParameter of src/caffe/proto/caffe.proto, of which only the
few fields with numbers are declared here. Independent of networks.
"""

import functools

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

# Field, number and type, as in the branch ssd of weiliu89/caffe. Every field
# is declared as repeated, which reads the same bytes; a single one is then a
# list of at most one. Packed numbers are declared as bytes, for NumPy to read.
_MESSAGES = {
    "Net": (("v1_layers", 2, "V1Layer"), ("layers", 100, "Layer")),
    "V1Layer": (("name", 4, "bytes"), ("blobs", 6, "Blob")),
    "Layer": (
        ("name", 1, "bytes"),
        ("blobs", 7, "Blob"),
        ("prior_box", 203, "PriorBox"),
    ),
    "Blob": (
        ("num", 1, "int32"),
        ("channels", 2, "int32"),
        ("height", 3, "int32"),
        ("width", 4, "int32"),
        ("data", 5, "bytes"),
        ("shape", 7, "Shape"),
        ("double_data", 8, "bytes"),
    ),
    "Shape": (("dim", 1, "int64"),),
    "PriorBox": (
        ("min_size", 1, "float"),
        ("max_size", 2, "float"),
        ("aspect_ratio", 3, "float"),
        ("flip", 4, "bool"),
        ("clip", 5, "bool"),
        ("variance", 6, "float"),
        ("step", 10, "float"),
        ("step_h", 11, "float"),
        ("step_w", 12, "float"),
        ("offset", 13, "float"),
    ),
}


def parse(content: bytes) -> dict[str, np.ndarray]:
    """Parses all numbers of a NetParameter.

    Args:
      content: bytes of the file.

    Returns:
      The blobs as float32 arrays `LAYER/0`, `LAYER/1` in Caffe's shape, and
      the fields of PriorBox layers, such as `LAYER/min_size`, as 1-d arrays.

    Raises:
      ValueError: the content is no such message, or a blob lacks numbers.
    """
    try:
        net = _net_class().FromString(content)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    arrays = {}
    for layer in (*net.v1_layers, *net.layers):
        for index, blob in enumerate(layer.blobs):
            name = f"{_name(layer)}/{index}"
            arrays[name] = _array(blob, name)
    for layer in net.layers:
        for prior_box in layer.prior_box:
            for field, values in prior_box.ListFields():
                arrays[f"{_name(layer)}/{field.name}"] = np.array(values)
    return arrays


@functools.cache
def _net_class() -> type[Message]:
    """Builds the message class from `_MESSAGES`."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe", package="ssd_tf")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            field = message.field.add(name=field_name, number=number)
            field.label = field.LABEL_REPEATED
            if kind in _MESSAGES:
                field.type = field.TYPE_MESSAGE
                field.type_name = f".ssd_tf.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
    # A pool of our own: the default one may hold some Caffe's messages.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName("ssd_tf.Net")
    return message_factory.GetMessageClass(descriptor)


def _name(layer: Message) -> str:
    return b"".join(layer.name[-1:]).decode("utf-8", "replace")


def _array(blob: Message, name: str) -> np.ndarray:
    """Returns a blob in its shape; old files have four sides instead."""
    values = np.frombuffer(b"".join(blob.data), "<f4")
    if not values.size:
        values = np.frombuffer(b"".join(blob.double_data), "<f8")
    shape = [number for part in blob.shape for number in part.dim]
    if not blob.shape:
        sides = (blob.num, blob.channels, blob.height, blob.width)
        shape = [side[-1] if side else 0 for side in sides]
    if min(shape, default=0) < 0 or np.prod(shape, dtype=float) != values.size:
        raise ValueError(f"{name} of shape {shape} has {values.size} numbers")
    return values.reshape(shape).astype(np.float32, copy=False)
