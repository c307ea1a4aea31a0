"""Batches by tf.data: decode, augment, resize, whiten, batch.

Receives parsed records (encoded image, boxes, labels, difficult, crowd,
source_id). Independent of where they come from and of what the network does
with a batch.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf

from ssd_tf.command import UserError
from ssd_tf.config.net import SSDParams
from ssd_tf.config.training import AUGMENTATIONS, AugmentParams
from ssd_tf.input_pipeline.augment import augment
from ssd_tf.input_pipeline.preprocessing import decode, resize, whiten

fold_in = tf.random.experimental.stateless_fold_in

Example = dict[str, Any]
# Takes a seed, an int64 scalar, and returns one pass over the parsed records
# in an order that follows from it.
Reader = Callable[[tf.Tensor], tf.data.Dataset]
SHUFFLE_BUFFER = 2048
# Raised by an invalid record, and by fewer records than the manifest says.
_BAD_DATA = (tf.errors.InvalidArgumentError, tf.errors.FailedPreconditionError)
# Padded numbers of boxes: 8, 16, 24, 32, 48, 64, 96... Few, since the encoder
# is compiled for each.
BOX_COUNTS = (8,) + tuple(
    size << doublings for doublings in range(3, 28) for size in (2, 3)
)


def make_for_train(
    read: Reader,
    num_samples: int,
    params: SSDParams,
    batch_size: int,
    augmentation: AugmentParams = AUGMENTATIONS["ssd"],
    ignore_difficult: bool = False,
    seed: int = 0,
    first_step: int = 0,
    context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Makes endless training batches.

    The k-th batch follows from the arguments alone, whatever the number of
    threads, so that a resumed run sees the batches it would have seen. Each
    of several workers decodes its own part of every global batch; together
    the parts are the batch of a single device.

    Args:
      read: reader of the records.
      num_samples: number of records in a pass.
      params: input size and whitening of the network.
      batch_size: images in a global batch.
      augmentation: probabilities and strengths of the augmentation.
      ignore_difficult: ignore difficult boxes like crowds instead of training
        on them.
      seed: seed of order and augmentation.
      first_step: number of batches that the run has seen before.
      context: index of this worker, and number of replicas that share a batch.

    Returns:
      Batches `image` float32 [B, H, W, 3], `boxes` float32 [B, M, 4],
      `labels` int64 [B, M] (0 pads), `ignored` bool [B, M], `source_id` [B].
      M is one of `BOX_COUNTS`, so that few shapes have to be compiled.

    Raises:
      tf.errors.InvalidArgumentError: from the iterator, at an image that
        cannot be decoded, a non-finite box or a label without a class;
        `explained_errors` names the image.
      tf.errors.FailedPreconditionError: there are not `num_samples` records.
    """

    def prepare(index, record):
        _check(record, params.num_classes)
        example = _example_for_training(record, ignore_difficult)
        example = augment(
            example,
            fold_in([seed, 0], index),
            augmentation,
            params.img_shape,
            params.image_mean,
        )
        return {**example, "image": whiten(example["image"], params)}

    context = context or tf.distribute.InputContext()
    # Shuffled passes from the first record of the first batch on.
    records = _passes(read, num_samples, seed, first_step * batch_size)
    # Decode and augment this worker's images; pad boxes to the longest list.
    batches = (
        _part_of_worker(records, batch_size, context)
        .map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        .padded_batch(
            context.get_per_replica_batch_size(batch_size), drop_remainder=True
        )
    )
    # Pad boxes once more, so that few shapes occur.
    return batches.map(pad_boxes).prefetch(tf.data.AUTOTUNE)


def _passes(read, num_samples, seed, first):
    """Returns indices and records from index `first` on, pass after pass.

    Each pass is shuffled by a seed of its own, so that resuming within a pass
    reads the encoded records of this pass only.
    """
    first_pass, seen = divmod(first, num_samples)

    def one_pass(number):
        # `shuffle` mixes its seed with that of the graph it is built in. Set
        # here, it does not depend on the global seed (of which 0 fails).
        tf.random.set_seed(1)
        order = tf.random.stateless_uniform(
            [], fold_in([seed, 1], number), 0, tf.int64.max, dtype=tf.int64
        )
        records = read(order).apply(
            tf.data.experimental.assert_cardinality(num_samples)
        )
        records = records.shuffle(
            SHUFFLE_BUFFER, seed=order, reshuffle_each_iteration=False
        )
        return records.skip(tf.cast(number == first_pass, tf.int64) * seen)

    passes = tf.data.Dataset.range(first_pass, tf.int64.max)
    return passes.flat_map(one_pass).enumerate(start=first)


def _part_of_worker(records, batch_size, context):
    """Keeps this worker's consecutive images of every global batch."""
    workers = context.num_input_pipelines
    if workers == 1:
        return records
    part = batch_size // workers

    def is_mine(index, _):
        return index // part % workers == context.input_pipeline_id

    return records.filter(is_mine)


def _check(record: Example, num_classes: int) -> None:
    """Raises InvalidArgumentError at a non-finite box or an unknown label."""
    finite = tf.reduce_all(tf.math.is_finite(record["boxes"]))
    tf.debugging.Assert(finite, ["a box is non-finite"])
    labels = record["labels"]
    named = tf.reduce_all((labels > 0) & (labels < num_classes))
    tf.debugging.Assert(named, ["a label has no class"])


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


def records_of_step(
    read: Reader, num_samples: int, batch_size: int, seed: int, step: int
) -> list[Example]:
    """Reads the records of a global batch, without augmentation.

    Args:
      read, num_samples, batch_size, seed: as in `make_for_train`.
      step: training step of the batch, from 1.

    Returns:
      Parsed records as NumPy arrays, in the order of the batch.
    """
    first = (step - 1) * batch_size
    passes = _passes(read, num_samples, seed, first).take(batch_size)
    return [record for _, record in passes.as_numpy_iterator()]


@contextlib.contextmanager
def explained_errors(
    read: Callable[[], Iterable[Example]], num_classes: int, what: str
) -> Iterator[None]:
    """Turns an error at a bad record into a UserError that names its image.

    Args:
      read: reads the records once more, as NumPy arrays.
      num_classes: number of classes with the background.
      what: name of the records in the message.

    Raises:
      UserError: an image cannot be decoded, a box is non-finite, a label has
        no class, or there are fewer records than their manifest says.
    """
    try:
        yield
    except _BAD_DATA as error:
        reason = _reason(error, read, num_classes)
        raise UserError(
            f"{what}: {reason}; mend or remove it, convert again, and the "
            "same command goes on"
        ) from error


def _reason(error, read, num_classes):
    """Describes the first bad record, or else quotes TensorFlow's error."""
    try:
        fault = _first_fault(read(), num_classes)
    except _BAD_DATA as reading_error:
        fault, error = None, reading_error
    return fault or _without_op(error.message.split("\n")[0])


def _first_fault(records, num_classes):
    """Describes the first bad record; None if there is none."""
    for record in records:
        try:
            _check(record, num_classes)
            decode(record["image"])
        except tf.errors.InvalidArgumentError as error:
            reason = error.message.split("\n")[-1].strip("[]b' ")
            name = record["source_id"].decode(errors="replace")
            return f"image {name}: {_without_op(reason)}"
    return None


def _without_op(message):
    """Removes the names of TensorFlow's operations from a message."""
    return re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:\w*\]?", "", message)


def make_for_eval(
    records: tf.data.Dataset,
    prepare: Callable[[Example], Example],
    batch_size: int,
) -> tf.data.Dataset:
    """Makes one pass of evaluation batches; the last may be smaller.

    Args:
      records: parsed records.
      prepare: makes a model's input of a record, such as `prepare_for(params)`.
      batch_size: images in a batch.

    Returns:
      Results of `prepare`, batched and padded: `image` float32 [B, H, W, 3],
      `height` and `width` [B] of the original, `boxes`, `labels` (0 pads),
      `difficult`, `crowd` [B, M] and `source_id` [B].
    """
    return (
        records.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        .padded_batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def prepare_for(params: SSDParams) -> Callable[[Example], Example]:
    """Returns a function that makes a network's input of a parsed record.

    The function replaces the encoded `image` by float32 [H, W, 3], and adds
    `height` and `width` of the original.
    """

    def prepare(record: Example) -> Example:
        image = decode(record["image"])
        return {
            **record,
            "image": whiten(resize(image, params.img_shape), params),
            "height": tf.shape(image)[0],
            "width": tf.shape(image)[1],
        }

    return prepare


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
