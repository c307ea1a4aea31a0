"""The order of tf.data: decode, augment, resize, whiten, batch.

Receives parsed records (encoded image, boxes, labels, difficult, crowd,
source_id) and knows neither where they come from nor what the network does
with a batch.
"""

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf

from ssd_tf.command import UserError
from ssd_tf.config.net import SSDParams
from ssd_tf.config.training import AUGMENTATIONS, AugmentParams
from ssd_tf.input_pipeline import augment
from ssd_tf.input_pipeline.preprocessing import decode, resize, whiten

fold_in = tf.random.experimental.stateless_fold_in

Example = dict[str, Any]
# From a seed (int64 scalar) to one pass over the parsed records, in an order
# that the seed decides.
Reader = Callable[[tf.Tensor], tf.data.Dataset]
SHUFFLE_BUFFER = 2048
# What a bad record raises, and fewer of them than the manifest says.
_BAD_DATA = (tf.errors.InvalidArgumentError, tf.errors.FailedPreconditionError)
# Few, since the encoder is compiled for each: 8, 16, 24, 32, 48, 64, 96...
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
    """Endless training batches.

    The k-th batch follows from the arguments alone, whatever the number of
    threads, and with it a run that goes on sees what it would have seen.
    With several workers each decodes its own part of every global batch; the
    union of the parts is the batch that one device would have got.

    Args:
      read: the records.
      num_samples: how many there are in a pass.
      params: input size and whitening of the network.
      batch_size: images in a global batch.
      augmentation: how images vary.
      ignore_difficult: difficult boxes are ignored like crowds, instead of
        trained on.
      seed: of order and augmentation.
      first_step: batches that a run has seen before.
      context: which worker this is, and how many replicas share a batch.

    Returns:
      Batches `image` float32 [B, H, W, 3], `boxes` float32 [B, M, 4],
      `labels` int64 [B, M] (0 pads), `ignored` bool [B, M], `source_id` [B].
      M is one of `BOX_COUNTS`, so that few shapes have to be compiled.

    Raises:
      tf.errors.InvalidArgumentError: from the iterator, at an image that
        cannot be decoded, a box that is no number or a label without a class;
        `explained_errors` names it.
      tf.errors.FailedPreconditionError: there are not `num_samples` records.
    """

    def prepare(index, record):
        _check(record, params.num_classes)
        example = _example_for_training(record, ignore_difficult)
        example = augment.augment(
            example,
            fold_in([seed, 0], index),
            augmentation,
            params.img_shape,
            params.image_mean,
        )
        return {**example, "image": whiten(example["image"], params)}

    context = context or tf.distribute.InputContext()
    records = _passes(read, num_samples, seed, first_step * batch_size)
    batches = (
        _part_of_worker(records, batch_size, context)
        .map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        .padded_batch(
            context.get_per_replica_batch_size(batch_size), drop_remainder=True
        )
    )
    return batches.map(pad_boxes).prefetch(tf.data.AUTOTUNE)


def _passes(read, num_samples, seed, first):
    """Index and record of all images from the `first` on, pass after pass.

    Every pass is shuffled by a seed of its own, so that to go on within one
    only the encoded records of this pass are read again.
    """
    first_pass, seen = divmod(first, num_samples)

    def one_pass(number):
        # Of this function's graph: `shuffle` mixes it with its own seed, and
        # would take the global one, which is no argument, and fail at 0.
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
    """Consecutive images of every global batch, a part a worker."""
    workers = context.num_input_pipelines
    if workers == 1:
        return records
    part = batch_size // workers

    def is_mine(index, _):
        return index // part % workers == context.input_pipeline_id

    return records.filter(is_mine)


def _check(record: Example, num_classes: int) -> None:
    """Stops at what would make a loss that is no number, or wrong."""
    finite = tf.reduce_all(tf.math.is_finite(record["boxes"]))
    tf.debugging.Assert(finite, ["a box is no number"])
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
    """The records of a global batch, as they were before the augmentation.

    Args:
      read, num_samples, batch_size, seed: as for `make_for_train`.
      step: the step that trained on it, from 1.

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
    """Inside, an error at a bad record becomes one line that names its image.

    Args:
      read: reads the records once more, as NumPy arrays.
      num_classes: with the background.
      what: they are, for the message.

    Raises:
      UserError: an image cannot be decoded, a box is no number, a label has
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
    """What is wrong with the first bad record, or else TensorFlow's words."""
    try:
        fault = _first_fault(read(), num_classes)
    except _BAD_DATA as of_reading:
        fault, error = None, of_reading
    return fault or _without_op(error.message.split("\n")[0])


def _first_fault(records, num_classes):
    """What is wrong with the first bad record; None if nothing is."""
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
    """An error's message without the names of TensorFlow's operations."""
    return re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:\w*\]?", "", message)


def make_for_eval(
    records: tf.data.Dataset,
    params: SSDParams | None,
    batch_size: int,
    prepare: Callable[[Example], Example] | None = None,
) -> tf.data.Dataset:
    """One pass of evaluation batches; the last may be smaller.

    Args:
      records: parsed.
      params: input size and whitening of the network; None with `prepare`.
      batch_size: images in a batch.
      prepare: instead of `prepare_for_eval` with these params, for a model
        that wants its images otherwise.

    Returns:
      What `prepare` gives, batched and padded: `image` float32 [B, H, W, 3],
      `height` and `width` [B] of the original, `boxes`, `labels` (0 pads),
      `difficult`, `crowd` [B, M] and `source_id` [B].
    """
    prepare = prepare or functools.partial(prepare_for_eval, params=params)
    return (
        records.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        .padded_batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def prepare_for_eval(record: Example, params: SSDParams) -> Example:
    """A parsed record with the network's input and the original's size."""
    image = decode(record["image"])
    return {
        **record,
        "image": whiten(resize(image, params.img_shape), params),
        "height": tf.shape(image)[0],
        "width": tf.shape(image)[1],
    }


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
