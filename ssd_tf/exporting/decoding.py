"""Encoded images of strangers, decoded within the exported graph.

An image says in its header how large it is. One that would need more memory
than a server has is refused before it is decoded.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from ssd_tf import preprocessing
from ssd_tf.exporting import gif

# So much of a file holds the size in every format but JPEG.
_HEADER_BYTES = 32
_JPEG, _PNG, _BMP = b"\xff\xd8\xff", b"\x89PNG", b"BM"


class Decoding(NamedTuple):
    """What an export does with encoded images."""

    # Height times width; an RGB image of 64 million has 192 MB.
    max_pixels: int = 1 << 26
    # A bad image is an image on which nothing is found, instead of an error
    # of the whole request: TensorFlow Serving merges requests into batches.
    bad_is_empty: bool = False


def image_size(encoded: tf.Tensor) -> tf.Tensor:
    """Height and width int64 `[2]` as the header of an image tells them.

    JPEG, PNG, GIF (its screen, see `gif.first_frame`), BMP and WebP. Bytes of
    no such image have size 0 x 0; that they are none, decoding will tell.
    """
    head = tf.strings.substr(encoded, 0, _HEADER_BYTES)
    padded = tf.strings.join([head, tf.constant(bytes(_HEADER_BYTES))])
    padded = tf.strings.substr(padded, 0, _HEADER_BYTES)
    octets = tf.cast(tf.io.decode_raw(padded, tf.uint8), tf.int64)

    def starts(magic: bytes, at: int = 0) -> tf.Tensor:
        return tf.equal(tf.strings.substr(padded, at, len(magic)), magic)

    return tf.case(
        [
            (starts(_JPEG), lambda: _jpeg_size(encoded)),
            (starts(_PNG), lambda: _numbers(octets, [20, 16], 4, True)),
            (starts(gif.MAGIC), lambda: _numbers(octets, [8, 6], 2)),
            (starts(_BMP), lambda: _bmp_size(octets)),
            # libwebp's container specification: lossy, lossless, extended.
            (starts(b"VP8 ", 12), lambda: _numbers(octets, [28, 26], 2)),
            (starts(b"VP8L", 12), lambda: _lossless_webp_size(octets)),
            (starts(b"VP8X", 12), lambda: _numbers(octets, [27, 24], 3) + 1),
        ],
        default=lambda: tf.zeros([2], tf.int64),
    )


def _numbers(octets, starts, length, big_endian=False):
    """Unsigned numbers of so many bytes, from these bytes on."""
    powers = [256**index for index in range(length)]
    weights = tf.constant(powers[::-1] if big_endian else powers, tf.int64)
    parts = [octets[start : start + length] for start in starts]
    return tf.reduce_sum(tf.stack(parts) * weights, axis=1)


def _jpeg_size(encoded):
    return tf.image.extract_jpeg_shape(encoded, tf.int64)[:2]


def _bmp_size(octets):
    """Signed: a negative height stores the rows from the top."""
    size = _numbers(octets, [22, 18], 4)
    return tf.minimum(size, 2**32 - size)


def _lossless_webp_size(octets):
    """Twice 14 bits from the 22nd byte on, less one; the width first."""
    bits = _numbers(octets, [21], 4)[0]
    return tf.stack([bits // 2**14 % 2**14, bits % 2**14]) + 1


def decode(encoded: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Encoded image -> uint8 `[h, w, 3]`.

    Raises:
      InvalidArgumentError: it has more pixels than that, or is no image.
    """
    encoded = tf.cond(
        tf.equal(tf.strings.substr(encoded, 0, len(gif.MAGIC)), gif.MAGIC),
        lambda: gif.first_frame(encoded),
        lambda: tf.identity(encoded),
    )
    size = image_size(encoded)
    check = tf.debugging.Assert(
        tf.reduce_prod(size) <= max_pixels,
        [f"an image has more than {max_pixels} pixels: height, width", size],
    )
    # In a graph; eagerly it has been checked already and is None.
    with tf.control_dependencies([] if check is None else [check]):
        return preprocessing.decode(tf.identity(encoded))


def decode_batch(
    encoded: tf.Tensor,
    prepare: Callable[[tf.Tensor], tf.Tensor],
    shape: tuple[int, int, int],
    decoding: Decoding,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and prepares images of any size.

    Args:
      encoded: string `[B]`.
      prepare: from uint8 `[h, w, 3]` to float32 of the shape.
      shape: height, width, channels of what the network takes.
      decoding: see there.

    Returns:
      float32 `[B, *shape]`, and bool `[B]`: which are images; the others are
      zeros.
    """

    def read(image):
        return prepare(decode(image, decoding.max_pixels))

    def read_or_blank(image):
        # Only a dataset can go on after an op that fails.
        good = tf.data.Dataset.from_tensors(image)
        good = good.map(lambda x: (read(x), True)).ignore_errors()
        blank = tf.data.Dataset.from_tensors((tf.zeros(shape), False))
        return good.concatenate(blank).take(1).get_single_element()

    def read_or_fail(image):
        return read(image), True

    images, valid = tf.map_fn(
        read_or_blank if decoding.bad_is_empty else read_or_fail,
        encoded,
        fn_output_signature=(
            tf.TensorSpec(shape, tf.float32),
            tf.TensorSpec([], tf.bool),
        ),
    )
    return images, valid
