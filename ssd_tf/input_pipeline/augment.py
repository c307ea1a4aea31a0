"""Augmentation of an image together with its boxes (paper, 2.2 and 3.6).

An example is a dict `{"image", "boxes": float32 [M, 4], "labels": int64 [M],
"ignored": bool [M]}`. Every draw follows from a stateless seed `[2]`, so that a
run is reproducible whatever the number of threads. Independent of anchors and
of where records come from.
"""

import functools
from typing import Any

import tensorflow as tf

from ssd_tf.config.training import AugmentParams
from ssd_tf.input_pipeline.crops import crop_boxes, draw_window, place
from ssd_tf.input_pipeline.photometric import distort_colors
from ssd_tf.input_pipeline.preprocessing import JPEG_DCT, decode, resize

Example = dict[str, Any]
# Caffe's five; the last is the nearest to OpenCV's LANCZOS4. Only `area`
# averages over what a shrunk pixel covers.
KERNELS = ("bilinear", "nearest", "area", "bicubic", "lanczos3")
# Kernels with negative weights: results may lie outside 0..255.
_BEYOND = ("bicubic", "lanczos3")


def augment(
    example: Example,
    seed: tf.Tensor,
    params: AugmentParams,
    img_shape: tuple[int, int],
    fill: tuple[float, float, float],
) -> Example:
    """Augments a training image as Caffe does.

    Caffe's order is colours, zoom-out, crop, resize, flip. Here zoom-out and
    crop are drawn first, as one window, and only the visible part of the image
    is decoded (if a JPEG) and resized; colours change afterwards, on fewer
    pixels.

    Args:
      example: example whose `image` is an encoded string.
      seed: int32 `[2]`; all draws follow from it.
      params: probabilities and strengths.
      img_shape: height and width of the result.
      fill: RGB in 0..255 of the canvas around an image that is zoomed out.

    Returns:
      The example with `image` float32 `[H, W, 3]`, 0..255, and the remaining
      boxes, relative to it.
    """
    seeds = tf.unstack(tf.random.split(seed, 4))
    target = None
    # Draw the window, and decode what it shows.
    if params.crop_prob or params.expand_prob:
        example, target = cut(example, seeds[0], params, img_shape)
        size = target[2:] - target[:2]
    else:
        example = {**example, "image": decode(example["image"])}
        size = img_shape
    # Resize that to its share of the result, and change its colours.
    image = random_resize(example["image"], size, seeds[1], params)
    image = distort_colors(image, seeds[2], params)
    # Where the window reaches beyond the image, fill up.
    if params.expand_prob:
        image = put_on_canvas(image, target, img_shape, fill)
    image = tf.ensure_shape(image, [*img_shape, 3])
    example = {**example, "image": image}
    if params.flip_prob:
        example = random_flip(example, seeds[3], params)
    return example


def cut(
    example: Example,
    seed: tf.Tensor,
    params: AugmentParams,
    img_shape: tuple[int, int],
) -> tuple[Example, tf.Tensor]:
    """Draws a window onto an example, and decodes what it shows.

    Args:
      example: example whose `image` is an encoded string; a JPEG is decoded in
        the visible part only, other formats as a whole.
      seed: int32 `[2]`.
      params: settings of crop and zoom-out.
      img_shape: height and width of the result.

    Returns:
      The example with `image` uint8 `[h, w, 3]`, the visible part, not
      resized, and the remaining boxes, relative to the window. And int32
      `[4]`: the part's place in the result, pixels.
    """
    encoded = example["image"]
    is_jpeg = tf.io.is_jpeg(encoded)
    whole = tf.cond(
        is_jpeg,
        lambda: tf.zeros([0, 0, 3], tf.uint8),
        lambda: decode(encoded),
    )
    shape = tf.cond(
        is_jpeg,
        lambda: tf.io.extract_jpeg_shape(encoded),
        lambda: tf.shape(whole),
    )
    window = draw_window(example, shape[:2], seed, params)
    source, target, window = place(window, shape[:2], img_shape)
    y, x = source[0], source[1]
    height, width = source[2] - y, source[3] - x
    image = tf.cond(
        is_jpeg,
        lambda: tf.io.decode_and_crop_jpeg(
            encoded,
            [y, x, height, width],
            channels=3,
            dct_method=JPEG_DCT,
        ),
        lambda: whole[y : y + height, x : x + width],
    )
    return {**crop_boxes(example, window), "image": image}, target


def random_resize(
    image: tf.Tensor, size: tf.Tensor, seed: tf.Tensor, params: AugmentParams
) -> tf.Tensor:
    """Resizes `[h, w, 3]` to float32 `[*size, 3]` with a random kernel.

    Without `random_interpolation` the kernel is bilinear, as in evaluation.
    """
    if not params.random_interpolation:
        return tf.cast(resize(image, size), tf.float32)

    def by(kernel):
        resized = tf.image.resize(image, size, method=kernel)
        if kernel in _BEYOND:
            resized = tf.clip_by_value(resized, 0.0, 255.0)
        return tf.cast(resized, tf.float32)

    choice = tf.random.stateless_uniform(
        [], seed, 0, len(KERNELS), dtype=tf.int32
    )
    return tf.switch_case(
        choice, [functools.partial(by, kernel) for kernel in KERNELS]
    )


def put_on_canvas(
    image: tf.Tensor,
    target: tf.Tensor,
    img_shape: tuple[int, int],
    fill: tuple[float, float, float],
) -> tf.Tensor:
    """Puts an image on a canvas of one colour.

    Args:
      image: float32 `[h, w, 3]`.
      target: int32 `[4]`, the image's place on the canvas, pixels.
      img_shape: height and width of the canvas.
      fill: RGB of the canvas.

    Returns:
      float32 `[H, W, 3]`.
    """
    row = tf.tile(tf.constant([fill], tf.float32), [img_shape[1], 1])

    def filled(height, width):
        return tf.tile(row[None, :width], [height, 1, 1])

    def enlarged():
        ymin, xmin, ymax, xmax = tf.unstack(target)
        height, width = img_shape
        left = filled(ymax - ymin, xmin)
        right = filled(ymax - ymin, width - xmax)
        rows = tf.concat([left, image, right], axis=1)
        above, below = filled(ymin, width), filled(height - ymax, width)
        return tf.concat([above, rows, below], axis=0)

    is_whole = tf.reduce_all(target == (0, 0, *img_shape))
    return tf.cond(is_whole, lambda: image, enlarged)


def flip_left_right(example: Example) -> Example:
    """Mirrors image and boxes; inverts itself."""
    ymin, xmin, ymax, xmax = tf.unstack(example["boxes"], axis=-1)
    boxes = tf.stack([ymin, 1 - xmax, ymax, 1 - xmin], axis=-1)
    image = tf.reverse(example["image"], axis=[1])
    return {**example, "image": image, "boxes": boxes}


def random_flip(
    example: Example, seed: tf.Tensor, params: AugmentParams
) -> Example:
    """Mirrors with probability `flip_prob`."""
    return tf.cond(
        tf.random.stateless_uniform([], seed) < params.flip_prob,
        lambda: flip_left_right(example),
        lambda: example,
    )
