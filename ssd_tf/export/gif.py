"""The first frame of a GIF alone, found without decoding anything.

A GIF's header tells the size of its screen, not of its frames: a screen of one
pixel may have frames of four billion, any number of them, and TensorFlow's
decoder reads them all to show the first.
"""

import tensorflow as tf

MAGIC = b"GIF8"
# GIF89a specification, sections 18, 20 and 22 to 24.
_SCREEN_SIZE, _FLAGS, _HEADER_BYTES = 6, 10, 13
_SIZE, _OWN_FLAGS, _DESCRIPTOR_BYTES = 5, 9, 10
_EXTENSION, _DESCRIPTOR = ord("!"), ord(",")
# Blocks that are looked at in a step: what a step costs has a bound, too.
_WINDOW = 256
# Runs of blocks of one length, of no more than a window, and extensions. Large
# images have blocks of 254 or 255 bytes, by their writer, and an XMP packet is
# some hundreds of any length.
_MAX_STEPS = 2_000


def first_frame(encoded: tf.Tensor) -> tf.Tensor:
    """A GIF with its first frame only, whose screen has the frame's size.

    Args:
      encoded: string scalar, a GIF. It may be cut off or damaged: what is not
        understood is left out, so that no decoder sees it.
    """
    end = tf.strings.length(encoded)
    # A header and a descriptor can be read from any position up to the end.
    room = tf.constant(bytes(_HEADER_BYTES + _DESCRIPTOR_BYTES))
    encoded = tf.strings.join([encoded, room])
    octets = tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int32)

    def part(start, stop):
        return tf.strings.substr(encoded, start, stop - start)

    colours = tf.minimum(_HEADER_BYTES + _table_bytes(octets[_FLAGS]), end)
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
            part(_FLAGS, tf.maximum(colours, _HEADER_BYTES)),
            part(at, tf.where(is_frame, stop, at)),
            tf.constant(b";"),
        ]
    )


def _table_bytes(flags):
    """Of a table of colours, three for each, if there is one."""
    size = 3 * tf.bitwise.left_shift(2, flags % 8)
    return tf.where(flags >= 128, size, 0)


def _skip_extensions(octets, at, end):
    """Position of the first block that is none."""
    return tf.while_loop(
        lambda at: (at < end) & tf.equal(octets[at], _EXTENSION),
        # Behind its mark and its kind.
        lambda at: [_skip_blocks(octets, at + 2, end)],
        [at],
        maximum_iterations=_MAX_STEPS,
    )[0]


def _skip_blocks(octets, at, end):
    """Position behind a chain of blocks, each led by its length, 0 ends it."""

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
