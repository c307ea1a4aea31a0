"""The images that an export learns from and is verified on."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.datasets import ground_truth
from ssd_tf.datasets.formats import shapes
from ssd_tf.detect.runtimes import NAMES
from ssd_tf.evaluation import evaluate
from ssd_tf.input_pipeline import batches as input_pipeline
from ssd_tf.input_pipeline import preprocessing

# Pictures of the built-in data that every export is run on.
_SAMPLE_SIZE = (240, 320)  # height, width
# Detections by `NAMES` -> mAP.
Measure = Callable[[dict[str, np.ndarray]], float]


def samples() -> list[bytes]:
    """Returns two pictures of the built-in data, as JPEG."""
    rng = np.random.default_rng(0)
    return [
        shapes.draw(rng, *_SAMPLE_SIZE, f"sample-{index}").image_bytes
        for index in range(2)
    ]


def calibration(
    dataset_dir: str | os.PathLike,
    split: str,
    number: int,
    img_shape: tuple[int, int],
) -> Iterator[np.ndarray]:
    """Returns the images of a split as a network sees them, but for its
    whitening.

    Args:
      dataset_dir, split: as for `ground_truth.open_split`.
      number: of images, at most.
      img_shape: height and width of the network's input.

    Returns:
      float32 `[H, W, 3]` in 0..255, read as they are asked for. An image that
      cannot be decoded is named and left out.

    Raises:
      UserError: no such split, or no image of it can be decoded.
    """
    data = ground_truth.open_split(dataset_dir, split).read().take(number)
    images = (
        preprocessing.resize(image, img_shape).numpy()
        for _, image in _decoded(data)
    )
    first = next(images, None)
    if first is None:
        raise _no_image(dataset_dir, split)
    return itertools.chain([first], images)


def annotated(
    dataset_dir: str | os.PathLike,
    split: str,
    number: int,
    class_names: Sequence[str],
) -> tuple[list[bytes], Measure]:
    """Returns images, and the function from all detections on them to mAP.

    Args:
      dataset_dir, split: as for `ground_truth.open_split`.
      number: of images, at most; one that cannot be decoded is named and left
        out.
      class_names: of the detector.

    Raises:
      UserError: no such split, other classes, or no image can be decoded.
    """
    data = (
        ground_truth.open_split(dataset_dir, split, class_names=class_names)
        .read()
        .take(number)
        .enumerate()
    )
    encoded = {
        index.numpy(): record["image"].numpy()
        for (index, record), _ in _decoded(data, lambda each: each[1])
    }
    if not encoded:
        raise _no_image(dataset_dir, split)
    kept = tf.constant([*encoded], tf.int64)
    batches = input_pipeline.make_for_eval(
        data.filter(lambda index, _: tf.reduce_any(index == kept)),
        lambda _, record: evaluate.with_size(record),
        batch_size=1,
    )

    def measure(found) -> float:
        index = itertools.count()

        def predict(_):
            at = next(index)
            return {name: found[name][at : at + 1] for name in NAMES}

        images = evaluate.collect(
            predict, batches, len(class_names), quiet=True
        )
        metrics, _ = evaluate.measure(images, class_names)
        return metrics["AP_VOC12/mAP"]

    return [*encoded.values()], measure


def _decoded(data, record_of=lambda each: each):
    """Yields elements of a data set whose image can be decoded, with the
    image.
    """
    for each in data:
        record = record_of(each)
        try:
            image = preprocessing.decode(record["image"])
        except tf.errors.InvalidArgumentError:
            name = record["source_id"].numpy().decode(errors="replace")
            command.say(f"image {name}: cannot be decoded and is left out")
        else:
            yield each, image


def _no_image(dataset_dir, split):
    return UserError(
        f"{dataset_dir}: no image of split {split!r} can be decoded; convert "
        "it again"
    )
