"""Encoded image -> the network's input, the same for every use of a net."""

import tensorflow as tf

from ssd_tf.config.net import SSDParams


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Encoded JPEG, PNG, GIF or BMP (its first frame) -> uint8 `[h, w, 3]`."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
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


def prepare_image(encoded: tf.Tensor, params: SSDParams) -> tf.Tensor:
    """Encoded image -> the network's input float32 `[H, W, 3]`.

    What evaluation, detection and the exported model all do.
    """
    return whiten(resize(decode(encoded), params.img_shape), params)
