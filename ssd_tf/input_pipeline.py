"""The order of tf.data: decode, augment, resize, whiten, batch.

Receives a data set of parsed records (DESIGN: encoded image, boxes, labels,
difficult, crowd, source_id) and knows neither where they come from nor what
the network does with a batch.
"""

from typing import Any

import tensorflow as tf

from ssd_tf import augment
from ssd_tf.config import SSDParams, check_choice

Example = dict[str, Any]
SHUFFLE_BUFFER = 2048
# Few, since the encoder is compiled for each: 8, 16, 24, 32, 48, 64, 96...
BOX_COUNTS = (8,) + tuple(
    size << doublings for doublings in range(3, 28) for size in (2, 3)
)


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Encoded JPEG, PNG, GIF or BMP (its first frame) -> uint8 `[h, w, 3]`."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def resize(image: tf.Tensor, img_shape: tuple[int, int]) -> tf.Tensor:
    """Warps `[h, w, 3]` to float32 `[H, W, 3]`, bilinear, ratio not kept."""
    return tf.image.resize(image, img_shape)


def whiten(image: tf.Tensor, params: SSDParams) -> tf.Tensor:
    """RGB in 0..255 minus the network's mean, times its scale."""
    return (tf.cast(image, tf.float32) - params.image_mean) * params.image_scale


def prepare_image(encoded: tf.Tensor, params: SSDParams) -> tf.Tensor:
    """Encoded image -> the network's input float32 `[H, W, 3]`.

    What evaluation, detection and the exported model all do.
    """
    return whiten(resize(decode(encoded), params.img_shape), params)


def _example_for_training(record: Example, ignore_difficult: bool) -> Example:
    ignored = record["crowd"]
    if ignore_difficult:
        ignored |= record["difficult"]
    return {
        "image": record["image"],
        "boxes": record["boxes"],
        "labels": record["labels"],
        "ignored": ignored,
        "source_id": record["source_id"],
    }


def _augment_light(
    example: Example, seed: tf.Tensor, img_shape: tuple[int, int]
) -> Example:
    """Crop, resize, flip and colours of an example that is still encoded.

    A JPEG is decoded only where the crop is, other formats whole; colours
    change after the resize, on fewer pixels.
    """
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
    window = augment.crop_window(shape, example["boxes"], crop_seed)
    # Whole pixels first, so that boxes and pixels move by the same amount.
    size = tf.cast(tf.stack([shape[0], shape[1]] * 2), tf.float32)
    low = tf.floor(window[:2] * size[:2])
    high = tf.maximum(tf.math.ceil(window[2:] * size[2:]), low + 1)
    high = tf.minimum(high, size[:2])
    example = augment.crop_boxes(example, tf.concat([low, high], 0) / size)
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
    image = resize(crop, img_shape)
    image = augment.random_colors(image, color_seed)
    return augment.random_flip({**example, "image": image}, flip_seed)


def make_for_train(
    records: tf.data.Dataset,
    params: SSDParams,
    batch_size: int,
    augmentation: str = "light",
    ignore_difficult: bool = False,
    seed: int = 0,
    context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Endless training batches.

    With several workers each decodes its own part of every global batch; the
    union of the parts is the batch that one device would have got.

    Args:
      records: parsed records, one pass over them.
      params: input size and whitening of the network.
      batch_size: images in a global batch.
      augmentation: "light" (crop, flip, colours) or "none".
      ignore_difficult: difficult boxes are ignored like crowds, instead of
        trained on.
      seed: of order and augmentation.
      context: which worker this is, and how many replicas share a batch.

    Returns:
      Batches `image` float32 [B, H, W, 3], `boxes` float32 [B, M, 4],
      `labels` int64 [B, M] (0 pads), `ignored` bool [B, M], `source_id` [B].
      M is one of `BOX_COUNTS`, so that few shapes have to be compiled.
    """
    check_choice("augmentation", augmentation)

    def prepare(record, seed):
        example = _example_for_training(record, ignore_difficult)
        if augmentation == "none":
            image = resize(decode(example["image"]), params.img_shape)
            example = {**example, "image": image}
        else:
            example = _augment_light(example, seed, params.img_shape)
        return {**example, "image": whiten(example["image"], params)}

    seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    seeds = seeds.batch(2, drop_remainder=True)
    # Shuffled before it repeats, so that an epoch sees every image once.
    records = records.shuffle(
        SHUFFLE_BUFFER, seed=seed, reshuffle_each_iteration=True
    ).repeat()
    context = context or tf.distribute.InputContext()
    examples = _part_of_worker(
        tf.data.Dataset.zip(records, seeds), batch_size, context
    )
    batches = examples.map(
        prepare, num_parallel_calls=tf.data.AUTOTUNE
    ).padded_batch(
        context.get_per_replica_batch_size(batch_size), drop_remainder=True
    )
    return batches.map(pad_boxes).prefetch(tf.data.AUTOTUNE)


def _part_of_worker(examples, batch_size, context):
    """Consecutive images of every global batch, a part a worker."""
    workers = context.num_input_pipelines
    if workers == 1:
        return examples
    part = batch_size // workers

    def is_mine(index, _):
        return index // part % workers == context.input_pipeline_id

    return examples.enumerate().filter(is_mine).map(lambda _, example: example)


def make_for_eval(
    records: tf.data.Dataset, params: SSDParams, batch_size: int
) -> tf.data.Dataset:
    """One pass of evaluation batches; the last may be smaller.

    Returns:
      `image` float32 [B, H, W, 3], `height` and `width` int32 [B] of the
      original, `boxes`, `labels` (0 pads), `difficult`, `crowd` [B, M] and
      `source_id` [B].
    """

    def prepare(record):
        image = decode(record["image"])
        return {
            **record,
            "image": whiten(resize(image, params.img_shape), params),
            "height": tf.shape(image)[0],
            "width": tf.shape(image)[1],
        }

    return (
        records.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        .padded_batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def pad_boxes(batch: Example) -> Example:
    """Pads the box axis of a training batch to the next of `BOX_COUNTS`."""
    number = tf.shape(batch["labels"])[1]
    enough = tf.searchsorted(BOX_COUNTS, number[None])[0]
    missing = tf.constant(BOX_COUNTS)[enough] - number
    padded = {
        key: tf.pad(batch[key], [[0, 0], [0, missing]])
        for key in ("labels", "ignored")
    }
    boxes = tf.pad(batch["boxes"], [[0, 0], [0, missing], [0, 0]])
    return {**batch, **padded, "boxes": boxes}
