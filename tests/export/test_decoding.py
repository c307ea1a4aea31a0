"""Strangers' images: their size by the header, limits, bad ones."""

import struct

import numpy as np
import pytest
import tensorflow as tf
from hostile_images import (
    HEIGHT,
    PICTURES,
    SIZELESS,
    WIDTH,
    animation,
    bomb,
)

from ssd_tf.export import decoding
from ssd_tf.export.decoding import Decoding


@pytest.mark.parametrize("name", PICTURES)
def test_the_header_tells_the_size_that_decoding_gives(name):
    size = tf.function(decoding.image_size)(tf.constant(PICTURES[name]))
    assert size.numpy().tolist() == [HEIGHT, WIDTH]
    image = decoding.decode(PICTURES[name], HEIGHT * WIDTH)
    assert image.shape == (HEIGHT, WIDTH, 3)
    # Red on the left, blue on the right; of greys, 76 and 29.
    left, right = image.numpy().astype(int)[5, [5, -5], 0]
    assert left - right > 40


def test_a_bmp_stored_from_the_top_has_a_negative_height():
    data = bytearray(PICTURES["bmp"])
    data[22:26] = struct.pack("<i", -HEIGHT)
    assert decoding.image_size(bytes(data)).numpy().tolist() == [HEIGHT, WIDTH]


@pytest.mark.parametrize(
    "data", [b"", b"text, and no image", b"BM", b"GIF89a", b"\x89PNG"]
)
def test_no_image_is_told_by_the_decoder(data):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoding.decode(data, 1 << 26)


@pytest.mark.parametrize("name", SIZELESS)
def test_what_hides_its_size_is_not_decoded(name):
    """The limit would not hold for it."""
    image = tf.io.decode_image(SIZELESS[name], expand_animations=False)
    assert image.shape[:2] == (HEIGHT, WIDTH)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="no image whose size can be read"
    ):
        decoding.decode(SIZELESS[name], 1 << 26)


def test_a_size_of_more_than_63_bits_is_refused():
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="more than 67108864 pixels"
    ):
        decoding.decode(bomb(2**32 - 1, 2**32 - 1), 1 << 26)


@pytest.mark.parametrize("name", PICTURES)
def test_a_larger_image_is_refused_with_its_size(name):
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=r"more than 11136 pixels.*\n?.*37\D+301",
    ):
        decoding.decode(PICTURES[name], HEIGHT * WIDTH - 1)


def test_a_bomb_is_refused_before_it_takes_memory(run_script):
    script = """
import resource, sys
sys.path.insert(0, "tests/support")
import tensorflow as tf
from hostile_images import PICTURES, bomb
from ssd_tf.export import decoding
decoding.decode(PICTURES["png"], 1 << 26)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decoding.decode(bomb(20_000, 20_000), 1 << 26)
except tf.errors.InvalidArgumentError as error:
    assert "20000" in str(error) and "67108864" in str(error), error
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    # The picture would have 1.2 GB, in kilobytes here.
    assert int(run_script(script)) < 50_000


def prepare(image):
    return tf.image.resize(image, (8, 8))


@pytest.mark.parametrize("bad_is_empty", [False, True])
def test_good_images_are_decoded_in_their_order(bad_is_empty):
    batch = tf.constant([PICTURES["png"], PICTURES["gif"]])
    images, valid = decoding.decode_batch(
        batch, prepare, (8, 8, 3), Decoding(bad_is_empty=bad_is_empty)
    )
    assert valid.numpy().tolist() == [True, True]
    for index, name in enumerate(("png", "gif")):
        expected = prepare(decoding.decode(PICTURES[name], 1 << 26))
        np.testing.assert_array_equal(images[index], expected)


def test_bad_images_are_zeros_where_asked():
    truncated = PICTURES["png"][:60]
    batch = [b"", PICTURES["jpeg"], b"text", bomb(20_000, 20_000), truncated]
    decode = tf.function(
        lambda x: decoding.decode_batch(
            x, prepare, (8, 8, 3), Decoding(bad_is_empty=True)
        )
    )
    images, valid = decode(tf.constant(batch))
    assert valid.numpy().tolist() == [False, True, False, False, False]
    assert not np.any(images[~valid.numpy()])
    assert np.any(images[1])


def test_a_bad_image_is_an_error_otherwise():
    decode = tf.function(
        lambda x: decoding.decode_batch(x, prepare, (8, 8, 3), Decoding())
    )
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(tf.constant([PICTURES["png"], b"text"]))


def test_an_animation_is_its_first_frame():
    image = decoding.decode(animation(), 63)
    assert image.shape == (7, 9, 3)
    assert image[3, 3].numpy().tolist() == [255, 0, 0]
