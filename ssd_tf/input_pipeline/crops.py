"""Windows onto an image for crop and zoom-out, and the boxes they show.

A window is `[ymin, xmin, ymax, xmax]`, like a box. While it is drawn it is in
whole pixels of the image and may reach beyond it; whole, so that boxes and
pixels move by the same amount.
"""

from typing import Any

import tensorflow as tf

from ssd_tf.config.training import AugmentParams
from ssd_tf.multibox import boxes as geometry

Example = dict[str, Any]
_BOX_KEYS = ("boxes", "labels", "ignored")


def draw_window(
    example: Example, size: tf.Tensor, seed: tf.Tensor, params: AugmentParams
) -> tf.Tensor:
    """Draws the part of the image, or of a canvas around it, to train on.

    Args:
      example: example with `boxes` float32 `[M, 4]`, relative, and `ignored`
        bool `[M]`.
      size: int32 `[2]`, height and width of the image in pixels.
      seed: int32 `[2]`.
      params: settings of crop and zoom-out.

    Returns:
      float32 `[4]` in whole pixels; contains at least one pixel of the image.
    """
    size = tf.cast(size, tf.float32)
    expand_seed, crop_seed, coin_seed = tf.unstack(tf.random.split(seed, 3))
    window = tf.concat([tf.zeros(2), size], 0)
    if params.expand_prob:
        window = zoom_out(size, expand_seed, params)
    if params.crop_prob:
        crop = draw_crop(example, size, window, crop_seed, params)
        coin = tf.random.stateless_uniform([], coin_seed)
        window = tf.where(coin < params.crop_prob, crop, window)
    return window


def zoom_out(
    size: tf.Tensor, seed: tf.Tensor, params: AugmentParams
) -> tf.Tensor:
    """Draws the canvas around an image (paper, 3.6; Caffe's ExpandImage).

    Args:
      size: float32 `[2]`, height and width of the image in pixels.
      seed: int32 `[2]`.
      params: `expand_prob` and `max_expand_ratio`.

    Returns:
      float32 `[4]` in whole pixels: the image itself, or a larger window of
      the same shape around it, at a uniformly random place.
    """
    coin, zoom, *place = tf.unstack(tf.random.stateless_uniform([4], seed))
    ratio = 1 + zoom * (params.max_expand_ratio - 1)
    ratio = tf.where(coin < params.expand_prob, ratio, 1.0)
    room = tf.floor(size * ratio) - size
    low = -tf.floor(tf.stack(place) * (room + 1))
    return tf.concat([low, low + size + room], 0)


def draw_crop(
    example: Example,
    size: tf.Tensor,
    canvas: tf.Tensor,
    seed: tf.Tensor,
    params: AugmentParams,
) -> tf.Tensor:
    """Draws a crop as Caffe's batch samplers do (paper, 2.2; sampler.cpp).

    For each of `crop_overlaps` the first of `crop_trials` random windows is
    found that has at least this IoU with some box. One of the windows found
    and the whole canvas is drawn, all with the same probability. As in Caffe,
    an image without boxes has no windows, even for an overlap of 0. Ignored
    and non-finite boxes do not count.

    Args:
      example: example with `boxes` float32 `[M, 4]`, relative, and `ignored`
        bool `[M]`.
      size: float32 `[2]`, height and width of the image in pixels.
      canvas: float32 `[4]`, pixels, window to crop from.
      seed: int32 `[2]`.
      params: `crop_overlaps`, `crop_trials` and the bounds of the windows.

    Returns:
      float32 `[4]` in whole pixels. Unlike Caffe's, it contains at least one
      pixel of the image.
    """
    # `crop_trials` windows for every overlap, in pixels of the image.
    window_seed, choice_seed = tf.unstack(tf.random.split(seed, 2))
    minima = tf.constant(params.crop_overlaps)
    shape = [len(params.crop_overlaps), params.crop_trials]
    windows = random_windows(shape[0] * shape[1], window_seed, params)
    windows = to_pixels(windows, canvas)
    # The largest IoU of every window with a box; -1 if none counts, or if the
    # window shows nothing of the image.
    boxes = example["boxes"]
    counts = tf.reduce_all(tf.math.is_finite(boxes), -1) & ~example["ignored"]
    boxes = tf.where(counts[:, None], geometry.clip(boxes), 0.0)
    pixels = boxes * tf.concat([size, size], 0)
    overlaps = tf.where(counts, geometry.iou_matrix(windows, pixels), -1.0)
    image = tf.concat([tf.zeros(2), size], 0)
    seen = geometry.area(geometry.clip(windows, image)) > 0
    best = tf.where(seen, tf.reduce_max(overlaps, axis=-1), -1.0)
    # The first window of every overlap that is good enough, if any.
    good = tf.reshape(best, shape) >= minima[:, None]
    first = tf.argmax(good, axis=-1, output_type=tf.int32)
    found = tf.gather(tf.reshape(windows, [*shape, 4]), first, batch_dims=1)
    # One of these or the canvas: the largest of uniform draws, others -1.
    choices = tf.concat([canvas[None], found], 0)
    possible = tf.concat([[True], tf.reduce_any(good, axis=-1)], 0)
    draws = tf.random.stateless_uniform([shape[0] + 1], choice_seed)
    return choices[tf.argmax(tf.where(possible, draws, -1.0))]


def random_windows(
    number: int, seed: tf.Tensor, params: AugmentParams
) -> tf.Tensor:
    """Draws windows float32 `[number, 4]`, relative (Caffe's SampleBBox).

    Scale (root of the share of the area) and aspect ratio, relative to the
    canvas, are uniform; the ratio is clipped so that the window fits.
    """
    scale, aspect, top, left = tf.unstack(
        tf.random.stateless_uniform([4, number], seed)
    )
    low, high = params.crop_scale
    scale = low + scale * (high - low)
    low, high = params.crop_aspect_ratio
    aspect = low + aspect * (high - low)
    aspect = tf.clip_by_value(aspect, scale**2, 1 / scale**2)
    height, width = scale / tf.sqrt(aspect), scale * tf.sqrt(aspect)
    top, left = top * (1 - height), left * (1 - width)
    return tf.stack([top, left, top + height, left + width], axis=-1)


def to_pixels(windows: tf.Tensor, canvas: tf.Tensor) -> tf.Tensor:
    """Converts windows `[n, 4]` relative to a canvas to pixels they touch."""
    origin, size = canvas[:2], canvas[2:] - canvas[:2]
    low = tf.clip_by_value(tf.floor(windows[:, :2] * size), 0.0, size - 1)
    high = tf.clip_by_value(tf.math.ceil(windows[:, 2:] * size), low + 1, size)
    return tf.concat([origin + low, origin + high], axis=-1)


def place(
    window: tf.Tensor, size: tf.Tensor, img_shape: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Computes the visible part of an image, and its place in the result.

    Args:
      window: float32 `[4]`, whole pixels, with some of the image in it.
      size: int32 `[2]`, height and width of the image in pixels.
      img_shape: height and width of the result.

    Returns:
      source: int32 `[4]`, the visible part in pixels of the image.
      target: int32 `[4]`, its place in pixels of the result, rounded.
      window: float32 `[4]`, relative to the image: the window that the rounded
        target shows, so that boxes follow the pixels.
    """
    shape = tf.constant(img_shape, tf.float32)
    size = tf.cast(size, tf.float32)
    source = geometry.clip(window, tf.concat([tf.zeros(2), size], 0))
    origin, scale = window[:2], shape / (window[2:] - window[:2])
    low = tf.minimum(tf.round((source[:2] - origin) * scale), shape - 1)
    high = tf.maximum(tf.round((source[2:] - origin) * scale), low + 1)
    # Multiplied before divided: exact if the target is the whole result.
    part = source[2:] - source[:2]
    begin = source[:2] - low * part / (high - low)
    end = source[:2] + (shape - low) * part / (high - low)
    moved = tf.concat([begin / size, end / size], 0)
    target = tf.concat([low, high], 0)
    return tf.cast(source, tf.int32), tf.cast(target, tf.int32), moved


def crop_boxes(example: Example, window: tf.Tensor) -> Example:
    """Keeps the boxes whose centre is in the window, and clips them (2.2).

    Ignored boxes are kept if any part of them is visible: the rest of a crowd
    is not background.

    Args:
      example: example with boxes relative to the image, which is not cropped.
      window: float32 `[4]`, relative to the image; may be larger.

    Returns:
      The example with the visible parts of the boxes, relative to the window.
    """
    ymin, xmin, ymax, xmax = tf.unstack(window)
    size = tf.stack([ymax - ymin, xmax - xmin] * 2)
    boxes = (example["boxes"] - tf.stack([ymin, xmin] * 2)) / size
    centers = geometry.to_center(boxes)[:, :2]
    inside = tf.reduce_all((centers > 0) & (centers < 1), axis=-1)
    moved = {**example, "boxes": geometry.clip(boxes)}
    inside |= example["ignored"] & (geometry.area(moved["boxes"]) > 0)
    return {
        **moved,
        **{key: tf.boolean_mask(moved[key], inside) for key in _BOX_KEYS},
    }
