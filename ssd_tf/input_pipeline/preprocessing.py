"""Encoded image -> the network's input, the same for every use of a net."""

import tensorflow as tf

from ssd_tf.config.net import SSDParams

# TensorFlow's default is a faster, coarser inverse DCT; this one gives the same
# pixels as Pillow and OpenCV, so that a file and its decoded array are alike.
JPEG_DCT = "INTEGER_ACCURATE"


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes JPEG, PNG, BMP or GIF (first frame) to uint8 `[h, w, 3]`."""
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method=JPEG_DCT),
        lambda: tf.io.decode_image(
            encoded, channels=3, expand_animations=False
        ),
    )
    return tf.ensure_shape(image, [None, None, 3])


def resize(image: tf.Tensor, img_shape: tuple[int, int]) -> tf.Tensor:
    """Warps `[h, w, 3]` to float32 `[H, W, 3]`, bilinear, ratio not kept."""
    return tf.image.resize(image, img_shape)


def whiten(image: tf.Tensor, params: SSDParams) -> tf.Tensor:
    """RGB in 0..255 minus the network's mean, times its scale."""
    image = tf.cast(image, tf.float32)
    # Whole rows: to broadcast three numbers takes three times as long.
    mean = tf.constant([params.image_mean], tf.float32)
    row = tf.tile(mean, [tf.shape(image)[-2], 1])
    return (image - row) * params.image_scale
