"""Augmentation: image and boxes together, a dict to a dict.

Every operation takes and returns `{"image": float32 [h, w, 3], 0..255,
"boxes": float32 [M, 4], "labels": int64 [M], "ignored": bool [M]}` and a
stateless seed `[2]`, so that a run is reproducible whatever the number of
threads. Nothing here knows of anchors or of where records come from.
"""

from typing import Any

import tensorflow as tf

from ssd_tf import boxes as geometry
from ssd_tf.preprocessing import decode, resize
from ssd_tf.recipe import AugmentParams

Example = dict[str, Any]
_BOX_KEYS = ("boxes", "labels", "ignored")
# The paper's minimum overlaps (section 2.2); 0 asks for nothing.
_MIN_COVERED = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
MAX_BRIGHTNESS = 32.0
CONTRAST_RANGE = (0.5, 1.5)
SATURATION_RANGE = (0.5, 1.5)


def _uniform(seed, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    return tf.random.stateless_uniform([], seed, low, high)


def _seeds(seed: tf.Tensor, number: int) -> list[tf.Tensor]:
    """Independent seeds `[2]` from one."""
    return tf.unstack(tf.random.split(seed, number))


def flip_left_right(example: Example) -> Example:
    """Mirrors image and boxes; twice is the identity."""
    ymin, xmin, ymax, xmax = tf.unstack(example["boxes"], axis=-1)
    boxes = tf.stack([ymin, 1 - xmax, ymax, 1 - xmin], axis=-1)
    image = tf.reverse(example["image"], axis=[1])
    return {**example, "image": image, "boxes": boxes}


def random_flip(example: Example, seed: tf.Tensor) -> Example:
    """Mirrors every second image."""
    return tf.cond(
        _uniform(seed) < 0.5,
        lambda: flip_left_right(example),
        lambda: example,
    )


def crop_window(
    shape: tf.Tensor, boxes: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """A window that covers one of the boxes by a random minimum share.

    One image in seven stays whole; the others draw one of the paper's
    overlaps, a scale of .3 to 1 and an aspect ratio of 1/2 to 2 (section 2.2).
    The share is that of a box covered, not yet the IoU of box and window.

    Args:
      shape: int32 `[3]`, of the image.
      boxes: float32 `[M, 4]`.
      seed: int32 `[2]`.

    Returns:
      float32 `[4]`: the window, relative; the whole image where there are no
      boxes.
    """
    choice_seed, window_seed = _seeds(seed, 2)
    whole = tf.constant([0.0, 0.0, 1.0, 1.0])
    number = len(_MIN_COVERED) + 1
    choice = tf.random.stateless_uniform(
        [], choice_seed, 0, number, dtype=tf.int32
    )
    covered = tf.gather(
        tf.constant(_MIN_COVERED), tf.minimum(choice, number - 2)
    )
    # The sampler refuses boxes that reach beyond the image by rounding, and
    # NaN, which the converter drops but other tools' records may hold.
    boxes = geometry.clip(tf.where(tf.math.is_finite(boxes), boxes, 0.0))
    window = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        tf.reshape(boxes, [1, -1, 4]),
        window_seed,
        min_object_covered=covered,
        aspect_ratio_range=(0.5, 2.0),
        area_range=(0.09, 1.0),
        max_attempts=50,
        use_image_if_no_bounding_boxes=True,
    ).bboxes[0, 0]
    use_whole = (choice == number - 1) | (tf.shape(boxes)[0] == 0)
    return tf.where(use_whole, whole, window)


def crop_boxes(example: Example, window: tf.Tensor) -> Example:
    """Boxes as seen in the window: kept by their centre, then clipped.

    Ignored boxes are kept while any of them is seen: what is left of a crowd
    is no background either.

    Args:
      example: its boxes are relative to the image; the image is not touched.
      window: float32 `[4]`, relative to the image.

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


def random_colors(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Brightness, contrast and saturation, each for every second image.

    Args:
      image: float32 `[h, w, 3]`, 0..255.
      seed: int32 `[2]`.

    Returns:
      float32 `[h, w, 3]`, cut to 0..255.
    """
    seeds = _seeds(seed, 6)

    def sometimes(coin, change, image):
        return tf.cond(
            _uniform(coin) < 0.5, lambda: change(image), lambda: image
        )

    delta = _uniform(seeds[1], -MAX_BRIGHTNESS, MAX_BRIGHTNESS)
    image = sometimes(seeds[0], lambda x: x + delta, image)
    contrast = _uniform(seeds[3], *CONTRAST_RANGE)
    image = sometimes(seeds[2], lambda x: x * contrast, image)
    saturation = _uniform(seeds[5], *SATURATION_RANGE)
    image = sometimes(seeds[4], lambda x: saturate(x, saturation), image)
    return tf.clip_by_value(image, 0.0, 255.0)


def saturate(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Moves the colours `[h, w, 3]` away from their grey by `factor`."""
    grey = tf.tensordot(image, tf.constant([0.299, 0.587, 0.114]), 1)
    return grey[..., None] * (1 - factor) + image * factor


def augment(
    example: Example,
    seed: tf.Tensor,
    params: AugmentParams,
    img_shape: tuple[int, int],
    fill: tuple[float, float, float],
) -> Example:
    """Crop, resize, flip and colours of an example that is still encoded.

    A JPEG is decoded only where the crop is, other formats whole; colours
    change after the resize, on fewer pixels.
    """
    if params.crop_prob == 0:
        image = resize(decode(example["image"]), img_shape)
        return {**example, "image": image}
    crop_seed, flip_seed, color_seed = tf.unstack(tf.random.split(seed, 3))
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
    window = crop_window(shape, example["boxes"], crop_seed)
    # Whole pixels first, so that boxes and pixels move by the same amount.
    size = tf.cast(tf.stack([shape[0], shape[1]] * 2), tf.float32)
    low = tf.floor(window[:2] * size[:2])
    high = tf.maximum(tf.math.ceil(window[2:] * size[2:]), low + 1)
    high = tf.minimum(high, size[:2])
    example = crop_boxes(example, tf.concat([low, high], 0) / size)
    y, x, height, width = tf.unstack(
        tf.cast(tf.concat([low, high - low], 0), tf.int32)
    )
    crop = tf.cond(
        is_jpeg,
        lambda: tf.io.decode_and_crop_jpeg(
            encoded, [y, x, height, width], channels=3
        ),
        lambda: whole[y : y + height, x : x + width],
    )
    image = random_colors(resize(crop, img_shape), color_seed)
    return random_flip({**example, "image": image}, flip_seed)
