"""Writes what Caffe writes: .caffemodel files and SSD's deploy.prototxt.

By hand and in Caffe's own terms (layer names, OIHW, BGR), so that nothing is
shared with `ssd_tf.weights.caffe`. The net is that of ssd_pascal.py and its
`_512` variant in examples/ssd of weiliu89/caffe, branch ssd.
"""

import dataclasses
import math
import struct

import numpy as np

VGG = {"conv1": 64, "conv2": 128, "conv3": 256, "conv4": 512, "conv5": 512}


@dataclasses.dataclass(frozen=True)
class Source:
    """A layer with heads, and its PriorBox."""

    name: str
    channels: int
    min_size: float
    max_size: float
    ratios: tuple[float, ...]
    step: float

    @property
    def anchors(self):
        return 2 + 2 * len(self.ratios)


def _sources(names, channels, sizes, ratios, steps):
    rows = zip(names, channels, sizes, sizes[1:], ratios, steps, strict=False)
    return [Source(*row) for row in rows]


_NAMES = ["conv4_3_norm", "fc7"] + [f"conv{n}_2" for n in range(6, 11)]
_CHANNELS = [512, 1024, 512, 256, 256, 256, 256]
_RATIOS_300 = [(2,), (2, 3), (2, 3), (2, 3), (2,), (2,)]
_RATIOS_512 = [(2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)]
_STEPS_300 = [8, 16, 32, 64, 100, 300]
_STEPS_512 = [8, 16, 32, 64, 128, 256, 512]
# The side of each layer's small anchor: 10 % of 300 pixels, then 20 % to 90 %
# in ssd_pascal.py, 7 % and 15 % to 90 % in ssd_coco.py; at 512 pixels 7 % and
# 15 %, 4 % and 10 %.
_SIZES = {
    "ssd_300_vgg_voc": [30, 60, 111, 162, 213, 264, 315],
    "ssd_300_vgg": [21, 45, 99, 153, 207, 261, 315],
    "ssd_512_vgg_voc": [35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.6],
    "ssd_512_vgg": [20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8]
    + [542.72],
}
SOURCES = {
    name: _sources(
        _NAMES,
        _CHANNELS,
        sizes,
        _RATIOS_512 if "512" in name else _RATIOS_300,
        _STEPS_512 if "512" in name else _STEPS_300,
    )
    for name, sizes in _SIZES.items()
}


def convolutions(sources, num_classes):
    """(name, inputs, outputs, kernel, stride, pad, dilation) of each, in order.

    Args:
      sources: one of `SOURCES`; seven are SSD512's.
      num_classes: with the background.
    """
    rows, inputs = [], 3
    for block, (name, channels) in enumerate(VGG.items()):
        for index in range(1, 3 if block < 2 else 4):
            rows.append((f"{name}_{index}", inputs, channels, 3, 1, 1, 1))
            inputs = channels
    rows.append(("fc6", 512, 1024, 3, 1, 6, 6))
    rows.append(("fc7", 1024, 1024, 1, 1, 0, 1))
    inputs, large = 1024, len(sources) == 7
    for number, source in enumerate(sources[2:], 6):
        reduced = 256 if number == 6 else 128
        last = large and number == 10
        strided = not last and (large or number < 8)
        rows.append((f"conv{number}_1", inputs, reduced, 1, 1, 0, 1))
        inputs = source.channels
        rows.append(
            (f"conv{number}_2", reduced, inputs, 4 if last else 3)
            + (2 if strided else 1, 1 if strided or last else 0, 1)
        )
    for source in sources:
        for kind, values in (("loc", 4), ("conf", num_classes)):
            name = f"{source.name}_mbox_{kind}"
            outputs = source.anchors * values
            rows.append((name, source.channels, outputs, 3, 1, 1, 1))
    return rows


def random_blobs(sources, num_classes, seed):
    """Blobs by layer: weights of He's scale, a head that detects little.

    Images of +-128 become activations of about 1 behind the first layer, so
    that logits and offsets stay of a trained net's size.
    """
    random = np.random.default_rng(seed)
    blobs = {}
    for name, inputs, outputs, kernel, *_ in convolutions(sources, num_classes):
        scale = math.sqrt(2 / (inputs * kernel**2))
        scale /= 64 if name == "conv1_1" else 1
        shape = (outputs, inputs, kernel, kernel)
        weights = random.standard_normal(shape, np.float32)
        biases = random.uniform(-0.05, 0.05, outputs)
        if name.endswith("_mbox_conf"):
            biases[::num_classes] += 9  # the background's
        blobs[name] = [
            np.float32(scale) * weights,
            biases.astype(np.float32),
        ]
    gamma = random.uniform(19, 21, 512).astype(np.float32)
    blobs["conv4_3_norm"] = [gamma]
    return blobs


def write(path, layers, v1=False):
    """Writes a .caffemodel.

    Args:
      path: of the file.
      layers: dict from a layer's name to its encoded fields, from `blobs` and
        `prior_box`.
      v1: as V1LayerParameter, as before 2015.
    """
    with open(path, "wb") as file:
        file.write(_bytes(1, b"net"))
        for name, fields in layers.items():
            layer = _bytes(4 if v1 else 1, name.encode()) + fields
            file.write(_bytes(2 if v1 else 100, layer))


def blobs(arrays, v1=False, dtype="<f4"):
    """Fields of a layer: its arrays.

    V1 files have four numbers instead of a shape, ones in front.
    """
    encoded = b""
    for array in arrays:
        data = np.asarray(array, dtype).tobytes()
        blob = _bytes(5 if dtype == "<f4" else 8, data)
        if v1:
            shape = (1,) * (4 - array.ndim) + array.shape
            blob += b"".join(_number(i, n) for i, n in enumerate(shape, 1))
        else:
            dims = b"".join(_varint(side) for side in array.shape)
            blob += _bytes(7, _bytes(1, dims))
        encoded += _bytes(6 if v1 else 7, blob)
    return encoded


def prior_box(source, clip=False, variances=(0.1, 0.1, 0.2, 0.2)):
    """Fields of a layer: PriorBox's parameters, as CreateMultiBoxHead's."""
    floats = [(1, source.min_size), (2, source.max_size)]
    floats += [(3, ratio) for ratio in source.ratios]
    floats += [(6, variance) for variance in variances]
    floats += [(10, source.step), (13, 0.5)]
    fields = b"".join(
        _varint(number << 3 | 5) + struct.pack("<f", value)
        for number, value in floats
    )
    return _bytes(203, fields + _number(4, 1) + _number(5, clip))


def ssd(sources, arrays, **options):
    """`layers` of `write` for a whole SSD; options are `prior_box`'s."""
    layers = {name: blobs(blob) for name, blob in arrays.items()}
    return layers | {
        f"{source.name}_mbox_priorbox": prior_box(source, **options)
        for source in sources
    }


def _varint(number):
    encoded = b""
    while number > 127:
        encoded += bytes([number & 127 | 128])
        number >>= 7
    return encoded + bytes([number])


def _number(field, value):
    return _varint(field << 3) + _varint(int(value))


def _bytes(field, value):
    return _varint(field << 3 | 2) + _varint(len(value)) + value
