"""Random colours of training images: float32 `[h, w, 3]`, 0..255, RGB.

The operations of Caffe's im_transforms.cpp. As there, values are clipped to
0..255 after each one. Unlike there, they are not rounded to integers, and hues
continue beyond red around the circle.
"""

from collections.abc import Callable

import tensorflow as tf

from ssd_tf.config.training import AugmentParams

HUES = 180  # hues of OpenCV's circle, in steps of 2 degrees


def brighten(image: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """Adds `delta`, in levels of 255, to all channels."""
    return tf.clip_by_value(image + delta, 0.0, 255.0)


def contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies all channels by `factor`; black stays black."""
    return tf.clip_by_value(image * factor, 0.0, 255.0)


def saturate(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies the saturation of HSV by `factor`, up to 1.

    With hue and value unchanged, this multiplies the differences from the
    largest channel. TensorFlow's own kernel converts to HSV and back, and makes
    some pixels black whose hue is just below 360 degrees.
    """
    # Channels first: TensorFlow is slow along a last axis of 3.
    channels = tf.transpose(tf.reshape(image, [-1, 3]))
    value = tf.reduce_max(channels, axis=0)
    spread = value - tf.reduce_min(channels, axis=0)
    # Saturation is spread / value, and at most 1; grey has a spread of 0.
    factor = tf.minimum(factor, value / tf.maximum(spread, 1e-6))
    channels = value - (value - channels) * factor
    return tf.reshape(tf.transpose(channels), tf.shape(image))


def rotate_hue(image: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """Adds `delta`, where 180 is the whole circle, to the hue of HSV."""
    return tf.raw_ops.AdjustHue(images=image, delta=delta / HUES)


def distort_colors(
    image: tf.Tensor, seed: tf.Tensor, params: AugmentParams
) -> tf.Tensor:
    """Applies each operation with its probability (Caffe's ApplyDistort).

    Contrast comes second or, with probability `random_order_prob`, last:
    Caffe's two orders.

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
    """Applies a change if it is drawn; else costs nothing."""
    return tf.cond(drawn, lambda: change(image, amount), lambda: image)
