"""Decodes untrusted encoded images inside the exported graph.

An image says in its header how large it is. One that would need more memory
than a server has is refused before it is decoded.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from ssd_tf.input_pipeline import preprocessing

# So much of a file holds the size in every format but JPEG.
_HEADER_BYTES = 32
_JPEG, _PNG, _BMP = b"\xff\xd8\xff", b"\x89PNG", b"BM"
_RIFF, _WEBP = b"RIFF", b"WEBP"


class Decoding(NamedTuple):
    """Treatment of encoded images in an export."""

    # Height times width; an RGB image of 64 million has 192 MB.
    max_pixels: int = 1 << 26
    # A bad image is an image on which nothing is found, instead of an error
    # of the whole request: TensorFlow Serving merges requests into batches.
    bad_is_empty: bool = False


def image_size(encoded: tf.Tensor) -> tf.Tensor:
    """Returns height and width int64 `[2]` as the header of an image tells
    them.

    JPEG, PNG, GIF (its screen, see `first_frame`), BMP and WebP. What is
    none of them has size 0 x 0, and also what a decoder would take without the
    part that tells its size: a PNG with another chunk before its header, a
    WebP without a chunk around its pixels.
    """
    head = tf.strings.substr(encoded, 0, _HEADER_BYTES)
    padded = tf.strings.join([head, tf.constant(bytes(_HEADER_BYTES))])
    padded = tf.strings.substr(padded, 0, _HEADER_BYTES)
    octets = tf.cast(tf.io.decode_raw(padded, tf.uint8), tf.int64)

    def has(magic: bytes, at: int = 0) -> tf.Tensor:
        return tf.equal(tf.strings.substr(padded, at, len(magic)), magic)

    is_png = has(_PNG) & has(b"IHDR", 12)
    is_webp = has(_RIFF) & has(_WEBP, 8)
    return tf.case(
        [
            (has(_JPEG), lambda: _jpeg_size(encoded)),
            (is_png, lambda: _numbers(octets, [20, 16], 4, True)),
            (has(MAGIC), lambda: _numbers(octets, [8, 6], 2)),
            (has(_BMP), lambda: _bmp_size(octets)),
            # libwebp's container specification: lossy, lossless, extended.
            (
                is_webp & has(b"VP8 ", 12),
                lambda: _numbers(octets, [28, 26], 2),
            ),
            (
                is_webp & has(b"VP8L", 12),
                lambda: _lossless_webp_size(octets),
            ),
            (
                is_webp & has(b"VP8X", 12),
                lambda: _numbers(octets, [27, 24], 3) + 1,
            ),
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
    """Decodes an image to uint8 `[h, w, 3]`.

    Raises:
      InvalidArgumentError: it has more pixels than that, or is no image whose
        size can be told before it is decoded.
    """
    encoded = tf.cond(
        tf.equal(tf.strings.substr(encoded, 0, len(MAGIC)), MAGIC),
        lambda: first_frame(encoded),
        lambda: tf.identity(encoded),
    )
    with tf.control_dependencies(_checks(image_size(encoded), max_pixels)):
        return preprocessing.decode(tf.identity(encoded))


def _checks(size, max_pixels):
    """Returns the assertions that hold before anything is decoded."""
    is_known = tf.debugging.Assert(
        tf.reduce_all(size > 0),
        [
            "no image whose size can be read: expected JPEG, PNG, GIF, BMP or "
            "WebP; height, width",
            size,
        ],
    )
    # Cut first: the product of two numbers of 32 bits may have 65.
    pixels = tf.reduce_prod(tf.minimum(size, max_pixels + 1))
    fits = tf.debugging.Assert(
        pixels <= max_pixels,
        [f"an image has more than {max_pixels} pixels: height, width", size],
    )
    # In a graph; eagerly they have been checked already and are None.
    return [check for check in (is_known, fits) if check is not None]


def decode_batch(
    encoded: tf.Tensor,
    prepare: Callable[[tf.Tensor], tf.Tensor],
    shape: tuple[int, int, int],
    decoding: Decoding,
    extract: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and prepares images of any size.

    Args:
      encoded: string `[B]`, encoded images or what they are in.
      prepare: from uint8 `[h, w, 3]` to float32 of the shape.
      shape: height, width, channels of what the network takes.
      decoding: see there.
      extract: from an element of `encoded` to an encoded image. An element
        that it fails on is a bad image.

    Returns:
      float32 `[B, *shape]`, and bool `[B]`: which are images; the others are
      zeros.
    """

    def read(image):
        return prepare(decode(extract(image), decoding.max_pixels))

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


MAGIC = b"GIF8"
# GIF89a specification, sections 18, 20 and 22 to 24.
_SCREEN_SIZE, _FLAGS, _GIF_HEADER_BYTES = 6, 10, 13
_SIZE, _OWN_FLAGS, _DESCRIPTOR_BYTES = 5, 9, 10
_EXTENSION, _DESCRIPTOR = ord("!"), ord(",")
# Blocks that are looked at in a step: what a step costs has a bound, too.
_WINDOW = 256
# Runs of blocks of one length, of no more than a window, and extensions. Large
# images have blocks of 254 or 255 bytes, by their writer, and an XMP packet is
# some hundreds of any length.
_MAX_STEPS = 2_000


def first_frame(encoded: tf.Tensor) -> tf.Tensor:
    """Returns a GIF with its first frame only, whose screen has the frame's
    size.

    Args:
      encoded: string scalar, a GIF. It may be cut off or damaged: what is not
        understood is left out, so that no decoder sees it.
    """
    end = tf.strings.length(encoded)
    # A header and a descriptor can be read from any position up to the end.
    room = tf.constant(bytes(_GIF_HEADER_BYTES + _DESCRIPTOR_BYTES))
    encoded = tf.strings.join([encoded, room])
    octets = tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int32)

    def part(start, stop):
        return tf.strings.substr(encoded, start, stop - start)

    colours = tf.minimum(_GIF_HEADER_BYTES + _table_bytes(octets[_FLAGS]), end)
    at = _skip_extensions(octets, colours, end)
    # Behind the descriptor its own colours, a byte of code size, the pixels.
    own = at + _DESCRIPTOR_BYTES + _table_bytes(octets[at + _OWN_FLAGS])
    stop = _skip_blocks(octets, own + 1, end)
    is_frame = tf.equal(octets[at], _DESCRIPTOR)
    size_at = tf.where(is_frame, at + _SIZE, _SCREEN_SIZE)
    return tf.strings.join(
        [
            part(0, _SCREEN_SIZE),
            part(size_at, size_at + 4),
            part(_FLAGS, tf.maximum(colours, _GIF_HEADER_BYTES)),
            part(at, tf.where(is_frame, stop, at)),
            tf.constant(b";"),
        ]
    )


def _table_bytes(flags):
    """Of a table of colours, three for each, if there is one."""
    size = 3 * tf.bitwise.left_shift(2, flags % 8)
    return tf.where(flags >= 128, size, 0)


def _skip_extensions(octets, at, end):
    """Returns position of the first block that is none."""
    return tf.while_loop(
        lambda at: (at < end) & tf.equal(octets[at], _EXTENSION),
        # Behind its mark and its kind.
        lambda at: [_skip_blocks(octets, at + 2, end)],
        [at],
        maximum_iterations=_MAX_STEPS,
    )[0]


def _skip_blocks(octets, at, end):
    """Returns position behind a chain of blocks, each led by its length, 0 ends
    it."""

    def skip(at):
        # Nearly all blocks of pixels are equally long; they are skipped at
        # once.
        step = octets[at] + 1
        lengths = octets[at : at + _WINDOW * step : step]
        is_equal = tf.cast(tf.equal(lengths + 1, step), tf.int32)
        run = tf.reduce_sum(tf.math.cumprod(is_equal))
        return [tf.minimum(at + run * step, end)]

    at = tf.while_loop(
        lambda at: (at < end) & tf.not_equal(octets[at], 0),
        skip,
        [tf.minimum(at, end)],
        maximum_iterations=_MAX_STEPS,
    )[0]
    return tf.minimum(at + 1, end)
