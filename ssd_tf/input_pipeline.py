"""The order of tf.data: decode, augment, resize, whiten, batch.

Receives a data set of parsed records (DESIGN: encoded image, boxes, labels,
difficult, crowd, source_id) and knows neither where they come from nor what
the network does with a batch.
"""

from typing import Any

import tensorflow as tf

from ssd_tf import augment
from ssd_tf.config import SSDParams
from ssd_tf.preprocessing import decode, resize, whiten
from ssd_tf.recipe import AUGMENTATIONS, AugmentParams

Example = dict[str, Any]
SHUFFLE_BUFFER = 2048
# Few, since the encoder is compiled for each: 8, 16, 24, 32, 48, 64, 96...
BOX_COUNTS = (8,) + tuple(
    size << doublings for doublings in range(3, 28) for size in (2, 3)
)


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


def make_for_train(
    records: tf.data.Dataset,
    params: SSDParams,
    batch_size: int,
    augmentation: AugmentParams = AUGMENTATIONS["ssd"],
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
      augmentation: how images vary.
      ignore_difficult: difficult boxes are ignored like crowds, instead of
        trained on.
      seed: of order and augmentation.
      context: which worker this is, and how many replicas share a batch.

    Returns:
      Batches `image` float32 [B, H, W, 3], `boxes` float32 [B, M, 4],
      `labels` int64 [B, M] (0 pads), `ignored` bool [B, M], `source_id` [B].
      M is one of `BOX_COUNTS`, so that few shapes have to be compiled.
    """

    def prepare(record, seed):
        example = _example_for_training(record, ignore_difficult)
        example = augment.augment(
            example, seed, augmentation, params.img_shape, params.image_mean
        )
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
