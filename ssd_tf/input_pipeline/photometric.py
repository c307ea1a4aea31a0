"""Colours of training images: float32 `[h, w, 3]`, 0..255, RGB.

The operations of Caffe's im_transforms.cpp. Like its bytes, values are cut to
0..255 after each, but they are not rounded; and hues go round the circle where
Caffe stops at red.
"""

from collections.abc import Callable

import tensorflow as tf

from ssd_tf.config.training import AugmentParams

HUES = 180  # of OpenCV's circle


def brighten(image: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """Adds `delta`, of 255, to all channels."""
    return tf.clip_by_value(image + delta, 0.0, 255.0)


def contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies all channels; black stays black."""
    return tf.clip_by_value(image * factor, 0.0, 255.0)


def saturate(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies the saturation of HSV, up to its largest, 1.

    With hue and value as they are, this stretches the distances from the
    largest channel. TensorFlow's own kernel goes to HSV and back, and makes
    some pixels black whose hue is just below the whole circle.
    """
    # Channel by channel: TensorFlow is slow along an axis of 3.
    channels = tf.transpose(tf.reshape(image, [-1, 3]))
    value = tf.reduce_max(channels, axis=0)
    spread = value - tf.reduce_min(channels, axis=0)
    # Saturation is spread / value; grey has a spread of 0.
    factor = tf.minimum(factor, value / tf.maximum(spread, 1e-6))
    channels = value - (value - channels) * factor
    return tf.reshape(tf.transpose(channels), tf.shape(image))


def rotate_hue(image: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """Adds `delta`, of 180 for the whole circle, to the hue of HSV."""
    return tf.raw_ops.AdjustHue(images=image, delta=delta / HUES)


def distort_colors(
    image: tf.Tensor, seed: tf.Tensor, params: AugmentParams
) -> tf.Tensor:
    """Each operation at its probability (Caffe's ApplyDistort).

    Contrast comes second or, with `random_order_prob`, last: Caffe's two
    orders.

    Args:
      image: float32 `[h, w, 3]`, 0..255.
      seed: int32 `[2]`.
      params: probabilities and strengths.

    Returns:
      float32 `[h, w, 3]`, 0..255.
    """
    draws = tf.random.stateless_uniform([9], seed)
    order, *coins = tf.unstack(draws[:5])
    delta, hue = params.brightness_delta, params.hue_delta
    low, high = zip(
        (-delta, delta),
        params.contrast_range,
        params.saturation_range,
        (-hue, hue),
        strict=True,
    )
    amounts = tf.constant(low) + draws[5:] * tf.subtract(high, low)
    probs = (
        params.brightness_prob,
        params.contrast_prob,
        params.saturation_prob,
        params.hue_prob,
    )
    changes = (brighten, contrast, saturate, rotate_hue)
    second = order >= params.random_order_prob
    for index, right_time in (
        (0, True),
        (1, second),
        (2, True),
        (3, True),
        (1, ~second),
    ):
        if probs[index]:
            image = _change_if(
                right_time & (coins[index] < probs[index]),
                changes[index],
                image,
                amounts[index],
            )
    return image


def _change_if(
    drawn: tf.Tensor, change: Callable, image: tf.Tensor, amount: tf.Tensor
) -> tf.Tensor:
    """Costs nothing where it is not drawn."""
    return tf.cond(drawn, lambda: change(image, amount), lambda: image)
