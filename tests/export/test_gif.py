"""The first frame of a GIF: found, and nothing else decoded."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from hostile_images import HEIGHT, PICTURES, WIDTH, animation, gif_bomb
from PIL import Image

from ssd_tf.export import decoding
from ssd_tf.export import decoding as gif


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def compiled(encoded):
    return gif.first_frame(encoded)


def first_frame(encoded):
    return compiled(tf.constant(encoded)).numpy()


def decode(encoded):
    return tf.io.decode_image(encoded, expand_animations=False).numpy()


def noise(height, width):
    """A GIF with thousands of blocks of pixels."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "GIF")
    return file.getvalue()


def in_blocks(encoded, length):
    """A GIF of one frame, its pixels in blocks of so many bytes."""
    # Behind the header, its colours and the frame's descriptor.
    start = encoded.index(b",", 13 + 3 * 256) + 11
    at, pixels = start, b""
    while encoded[at]:
        pixels += encoded[at + 1 : at + 1 + encoded[at]]
        at += encoded[at] + 1
    parts = [pixels[at : at + length] for at in range(0, len(pixels), length)]
    blocks = b"".join(bytes([len(part)]) + part for part in parts)
    return encoded[:start] + blocks + b"\0;"


@pytest.mark.parametrize("length", [255, 254])
def test_a_large_frame_is_whole_whatever_the_length_of_its_blocks(length):
    """ImageMagick, libgd and netpbm write 254 bytes, Pillow 255."""
    encoded = in_blocks(noise(700, 900), length)
    assert len(encoded) > 2_000 * 256
    frame = first_frame(encoded)
    np.testing.assert_array_equal(decode(frame), decode(encoded))


@pytest.mark.parametrize(
    "encoded",
    [
        PICTURES["gif"],
        animation(),
        # Extensions before the frame, of full blocks and of one that is not.
        animation(comment=b"x" * (255 * 3)),
        animation(comment=b"x" * 1000, loop=0),
        noise(300, 400),
    ],
    ids=["still", "animation", "full blocks", "comment and loop", "large"],
)
def test_the_first_frame_is_what_decoding_shows(encoded):
    np.testing.assert_array_equal(decode(first_frame(encoded)), decode(encoded))


def test_nothing_of_the_other_frames_is_left():
    with Image.open(io.BytesIO(first_frame(animation()))) as alone:
        assert alone.n_frames == 1
        assert alone.convert("RGB").getpixel((3, 3)) == (255, 0, 0)


def test_the_screen_becomes_the_frame():
    frame = first_frame(gif_bomb(20_000, 10_000))
    assert struct.unpack("<HH", frame[6:10]) == (10_000, 20_000)
    assert decoding.image_size(frame).numpy().tolist() == [20_000, 10_000]


def test_a_frame_larger_than_its_screen_is_refused():
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="more than 67108864 pixels"
    ):
        decoding.decode(gif_bomb(20_000, 20_000), 1 << 26)


def test_a_frame_is_cut_off_where_the_file_is():
    whole = PICTURES["gif"]
    for length in range(len(gif.MAGIC), len(whole)):
        frame = first_frame(whole[:length])
        # At least a header; of the file no more than there is of it.
        assert 13 < len(frame) <= max(length, 13) + 1
        assert frame.endswith(b";")
    size = struct.pack("<HH", WIDTH, HEIGHT)
    assert first_frame(whole)[6:10] == size


@pytest.mark.parametrize(
    "blocks",
    [b"\x01a" * 1_000_000, b"\xff" * 1_000_000, b""],
    ids=["short", "full", "none"],
)
def test_a_chain_without_an_end_ends(blocks):
    header = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
    assert first_frame(header + b"!\xfe" + blocks) == header + b";"
