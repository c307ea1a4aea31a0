"""Whatever can detect, as two functions: from pixels, and from a batch.

A train_dir or checkpoint, an exported SavedModel, a TFLite or ONNX file. All
get the same pixels, decoded as for training and evaluation.
"""

import io
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from ssd_tf.command import UserError
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.detect import description, runtimes, stated_names
from ssd_tf.detect import saved_model as serving
from ssd_tf.input_pipeline import preprocessing
from ssd_tf.nets import checkpoint

FILES = (".tflite", ".onnx")


class Model(NamedTuple):
    """A detector that is ready to run."""

    # An image uint8 [h, w, 3], and the same as JPEG or PNG where it was a
    # file -> an element of a batch. In any thread.
    prepare: Callable[[np.ndarray, bytes | None], Any]
    # A batch -> arrays by `runtimes.NAMES`, with a batch axis.
    predict: Callable[[Sequence[Any]], dict[str, np.ndarray]]
    # None where the file does not say.
    class_names: tuple[str, ...] | None = None
    # It refuses images with more.
    max_pixels: int | None = None


def is_file(path: str | os.PathLike) -> bool:
    """Whether a path means a TFLite or ONNX file, by its name."""
    return pathlib.Path(path).suffix.lower() in FILES


def has_options(path: str | os.PathLike) -> bool:
    """Whether `DetectionParams` can be chosen: only for a checkpoint."""
    return not (is_file(path) or serving.find_saved_model(path))


def load(
    path: str | os.PathLike, options: DetectionParams = DetectionParams()
) -> Model:
    """Loads a detector.

    Args:
      path: of any kind above; an export may be the folder of its versions.
      options: of a checkpoint's detections; all others have their own.

    Raises:
      UserError: there is none, or it cannot be run here.
    """
    if is_file(path):
        return _of_file(pathlib.Path(path))
    if saved_model := serving.find_saved_model(path):
        return _of_saved_model(saved_model)
    return _of_checkpoint(path, options)


def _of_checkpoint(path, options):
    net = checkpoint.load_net(path)
    shape = (None, *net.params.img_shape, 3)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
    def detect(images):
        whitened = preprocessing.whiten(images, net.params)
        return net.detect(whitened, options)._asdict()

    def predict(batch: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        found = detect(np.stack(batch))
        return {name: value.numpy() for name, value in found.items()}

    names = tuple(checkpoint.load_config(path).class_names)
    return Model(_resizing(net.params.img_shape), predict, names)


def _resizing(size):
    """`prepare` of those that take pixels: float32 `[H, W, 3]` in 0..255."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def resize(image):
        # As within tf.data, and beside what a GPU does.
        with tf.device("CPU:0"):
            return preprocessing.resize(image, size)

    return lambda pixels, _: resize(pixels).numpy()


def _of_file(path):
    if not path.is_file():
        raise UserError(f"--model={path}: no such file")
    is_onnx = path.suffix.lower() == ".onnx"
    runtime = (runtimes.load_onnx if is_onnx else runtimes.load_tflite)(path)
    return Model(
        _resizing(runtime.input_size),
        lambda batch: runtime.run(np.stack(batch)),
        stated_names.inside(path),
    )


def _of_saved_model(path):
    predict, class_names = serving.load_predictor(path)
    return Model(_encoded, predict, class_names, _max_pixels(path))


def _encoded(pixels, encoded):
    """Lossless, not compressed: it is decoded at once."""
    if encoded is None:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=0)
        encoded = file.getvalue()
    return encoded


def _max_pixels(saved_model):
    """What an export says of the images it takes; older ones say nothing."""
    try:
        return int((description.load(saved_model) or {})["max_pixels"])
    except (UserError, ValueError, KeyError, TypeError):
        return None
