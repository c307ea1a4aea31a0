"""Augmentation: image and boxes together, a dict to a dict.

An example is `{"image", "boxes": float32 [M, 4], "labels": int64 [M],
"ignored": bool [M]}`. Every draw follows from a stateless seed `[2]`, so that a
run is reproducible whatever the number of threads. Nothing here knows of
anchors or of where records come from.
"""

import functools
from typing import Any

import tensorflow as tf

from ssd_tf.config.training import AugmentParams
from ssd_tf.input_pipeline.crops import crop_boxes, draw_window, place
from ssd_tf.input_pipeline.photometric import distort_colors
from ssd_tf.input_pipeline.preprocessing import JPEG_DCT, decode, resize

Example = dict[str, Any]
# Caffe's five; the last is the nearest to OpenCV's LANCZOS4. None of them
# smooths before it shrinks, but area.
KERNELS = ("bilinear", "nearest", "area", "bicubic", "lanczos3")
# They go beyond the values they are given, also where those are all alike.
_BEYOND = ("bicubic", "lanczos3")


def augment(
    example: Example,
    seed: tf.Tensor,
    params: AugmentParams,
    img_shape: tuple[int, int],
    fill: tuple[float, float, float],
) -> Example:
    """Everything that makes a training image another one each time.

    As in Caffe: colours, zoom-out, crop, resize, flip; but only the visible
    part is decoded (of a JPEG) and resized, once, and colours change after
    that, on fewer pixels.

    Args:
      example: its `image` is encoded, a string.
      seed: int32 `[2]`; it alone decides.
      params: what is done, how often and how strongly.
      img_shape: height and width of the result.
      fill: RGB, 0..255, of the canvas around an image that is zoomed out.

    Returns:
      The example with `image` float32 `[H, W, 3]`, 0..255, and the boxes that
      are left, relative to it.
    """
    seeds = tf.unstack(tf.random.split(seed, 4))
    target = None
    if params.crop_prob or params.expand_prob:
        example, target = cut(example, seeds[0], params, img_shape)
        size = target[2:] - target[:2]
    else:
        example = {**example, "image": decode(example["image"])}
        size = img_shape
    image = random_resize(example["image"], size, seeds[1], params)
    image = distort_colors(image, seeds[2], params)
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
    """What a random window shows of an example whose image is encoded.

    Args:
      example: its `image` is a string; of a JPEG only the visible part is
        decoded, other formats are decoded whole.
      seed: int32 `[2]`.
      params: `crop_prob`, `expand_prob` and what belongs to them.
      img_shape: height and width of the result.

    Returns:
      The example with `image` uint8 `[h, w, 3]`, the visible part in its own
      size, and the boxes that are left, relative to the window; and int32
      `[4]`, where in the result the part belongs, in pixels.
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
    """Warps `[h, w, 3]` to float32 `[*size, 3]`, by one of `KERNELS`.

    By the bilinear one of evaluation without `random_interpolation`.
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
    """An image float32 `[h, w, 3]` at `target` int32 `[4]`, the rest `fill`."""

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
    """Mirrors image and boxes; twice is the identity."""
    ymin, xmin, ymax, xmax = tf.unstack(example["boxes"], axis=-1)
    boxes = tf.stack([ymin, 1 - xmax, ymax, 1 - xmin], axis=-1)
    image = tf.reverse(example["image"], axis=[1])
    return {**example, "image": image, "boxes": boxes}


def random_flip(
    example: Example, seed: tf.Tensor, params: AugmentParams
) -> Example:
    """Mirrors at `flip_prob`."""
    return tf.cond(
        tf.random.stateless_uniform([], seed) < params.flip_prob,
        lambda: flip_left_right(example),
        lambda: example,
    )
