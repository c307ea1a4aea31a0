"""Windows onto an image, larger or smaller than it, and what they show.

A window is `[ymin, xmin, ymax, xmax]` like a box. As long as it is being drawn
it is in pixels of the image, always whole ones, and may reach beyond it; so
boxes and pixels move by the same amount.
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
    """The part of the image, or of a canvas around it, that is trained on.

    Args:
      example: its `boxes` float32 `[M, 4]`, relative, and `ignored` bool `[M]`.
      size: int32 `[2]`, height and width of the image in pixels.
      seed: int32 `[2]`.
      params: `expand_prob`, `crop_prob` and what belongs to them.

    Returns:
      float32 `[4]` in whole pixels; at least one pixel of the image is in it.
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
    """The canvas that an image is put on (paper, 3.6; Caffe's ExpandImage).

    Args:
      size: float32 `[2]`, height and width of the image in pixels.
      seed: int32 `[2]`.
      params: `expand_prob` and `max_expand_ratio`.

    Returns:
      float32 `[4]` in whole pixels: the image itself, or a window around it of
      the same shape, every place in which is as likely.
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
    """A crop as of Caffe's batch samplers (paper, 2.2; sampler.cpp).

    Each minimum overlap looks for the first of its windows whose IoU with some
    box is as large; one of those found and the whole canvas is taken, all as
    likely. As in Caffe no window is found without a box to compare with, also
    if the minimum is 0. Ignored boxes and such that are no numbers do not
    count.

    Args:
      example: its `boxes` float32 `[M, 4]`, relative, and `ignored` bool `[M]`.
      size: float32 `[2]`, height and width of the image in pixels.
      canvas: float32 `[4]`, pixels, what is cropped from.
      seed: int32 `[2]`.
      params: `crop_overlaps`, `crop_trials` and the bounds of the windows.

    Returns:
      float32 `[4]` in whole pixels. At least one pixel of the image is in it,
      which Caffe does not ask for.
    """
    window_seed, choice_seed = tf.unstack(tf.random.split(seed, 2))
    minima = tf.constant(params.crop_overlaps)
    shape = [len(params.crop_overlaps), params.crop_trials]
    windows = random_windows(shape[0] * shape[1], window_seed, params)
    windows = to_pixels(windows, canvas)
    boxes = example["boxes"]
    counts = tf.reduce_all(tf.math.is_finite(boxes), -1) & ~example["ignored"]
    boxes = tf.where(counts[:, None], geometry.clip(boxes), 0.0)
    pixels = boxes * tf.concat([size, size], 0)
    overlaps = tf.where(counts, geometry.iou_matrix(windows, pixels), -1.0)
    image = tf.concat([tf.zeros(2), size], 0)
    seen = geometry.area(geometry.clip(windows, image)) > 0
    best = tf.where(seen, tf.reduce_max(overlaps, axis=-1), -1.0)
    good = tf.reshape(best, shape) >= minima[:, None]
    first = tf.argmax(good, axis=-1, output_type=tf.int32)
    found = tf.gather(tf.reshape(windows, [*shape, 4]), first, batch_dims=1)
    choices = tf.concat([canvas[None], found], 0)
    possible = tf.concat([[True], tf.reduce_any(good, axis=-1)], 0)
    draws = tf.random.stateless_uniform([shape[0] + 1], choice_seed)
    return choices[tf.argmax(tf.where(possible, draws, -1.0))]


def random_windows(
    number: int, seed: tf.Tensor, params: AugmentParams
) -> tf.Tensor:
    """Windows float32 `[number, 4]`, relative (Caffe's SampleBBox).

    Scale and aspect ratio are relative as well, and uniform; the ratio is cut
    to what fits.
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
    """Windows `[n, 4]` relative to a canvas -> the whole pixels they touch."""
    origin, size = canvas[:2], canvas[2:] - canvas[:2]
    low = tf.clip_by_value(tf.floor(windows[:, :2] * size), 0.0, size - 1)
    high = tf.clip_by_value(tf.math.ceil(windows[:, 2:] * size), low + 1, size)
    return tf.concat([origin + low, origin + high], axis=-1)


def place(
    window: tf.Tensor, size: tf.Tensor, img_shape: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Where the visible part of an image comes from and goes to.

    Args:
      window: float32 `[4]`, whole pixels, with some of the image in it.
      size: int32 `[2]`, height and width of the image in pixels.
      img_shape: height and width of the result.

    Returns:
      source: int32 `[4]`, the visible part in pixels of the image.
      target: int32 `[4]`, what becomes of it, in pixels of the result.
      window: float32 `[4]`, relative to the image: the window up to the
        rounding of the target, so that boxes follow the pixels.
    """
    shape = tf.constant(img_shape, tf.float32)
    size = tf.cast(size, tf.float32)
    source = geometry.clip(window, tf.concat([tf.zeros(2), size], 0))
    origin, scale = window[:2], shape / (window[2:] - window[:2])
    low = tf.minimum(tf.round((source[:2] - origin) * scale), shape - 1)
    high = tf.maximum(tf.round((source[2:] - origin) * scale), low + 1)
    # Multiplied first: exact wherever the target is the whole result.
    part = source[2:] - source[:2]
    begin = source[:2] - low * part / (high - low)
    end = source[:2] + (shape - low) * part / (high - low)
    moved = tf.concat([begin / size, end / size], 0)
    target = tf.concat([low, high], 0)
    return tf.cast(source, tf.int32), tf.cast(target, tf.int32), moved


def crop_boxes(example: Example, window: tf.Tensor) -> Example:
    """Boxes as seen in the window: kept by their centre, then clipped.

    Ignored boxes are kept while any of them is seen: what is left of a crowd
    is no background either.

    Args:
      example: its boxes are relative to the image; the image is not touched.
      window: float32 `[4]`, relative to the image, and maybe larger.

    Returns:
      The example with the boxes, relative to the window, whose centre lies in
      it; their visible part.
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
