"""Encoded image -> the network's input, the same for every use of a net."""

import tensorflow as tf

from ssd_tf.config.net import SSDParams

# Gives the same pixels as Pillow and OpenCV, so that a file and its decoded
# array give the same detections; TensorFlow's default is a coarser inverse DCT.
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
    """Resizes `[h, w, 3]` to float32 `[H, W, 3]`, bilinear, to any ratio."""
    return tf.image.resize(image, img_shape)


def whiten(image: tf.Tensor, params: SSDParams) -> tf.Tensor:
    """Computes (image - mean) * scale of RGB in 0..255, as float32."""
    image = tf.cast(image, tf.float32)
    # A whole row: broadcasting three numbers takes three times as long.
    mean = tf.constant([params.image_mean], tf.float32)
    row = tf.tile(mean, [tf.shape(image)[-2], 1])
    return (image - row) * params.image_scale
