"""One detector for every path: `load_detector(path)(image) -> Detections`.

A train_dir, a checkpoint, a SavedModel, a .tflite or .onnx file, or a file of
detections. Importing this module imports no TensorFlow: `ssd_tf.client` makes
the same `Detector` ask a server.
"""

import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ssd_tf.command import UserError
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.detect import (
    coco_json,
    description,
    runtimes,
    saved_model,
)
from ssd_tf.detect.results import Detections, batch_of, detections_of

if TYPE_CHECKING:
    from ssd_tf.detect.reading import Picture

# What a detector takes as `image` of a batch: float32 [B, H, W, 3] in 0..255
# at its input size, encoded files, or nothing: it knows images by their ids.
PIXELS, ENCODED, IDS = "pixels", "encoded", "ids"
_FILES = (".tflite", ".onnx", ".json")
# By name: `image`, and for `IDS` `source_id` bytes, `height`, `width` [B].
Batch = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Detector:
    """A detector of any kind, ready to run."""

    # From a batch to arrays by `runtimes.NAMES`.
    predict: Callable[[Batch], dict[str, np.ndarray]]
    takes: str  # PIXELS, ENCODED or IDS
    source: dict[str, Any]  # its kind, path and origin, for reports
    names: tuple[str, ...] | None = None  # class names; None where unstated
    input_size: tuple[int, int] | None = None  # height, width, pixels
    anchors: np.ndarray | None = None  # float32 [A, 4], corners
    # Options of its detections, where they are known.
    options: Mapping[str, Any] | None = None
    max_pixels: int | None = None  # larger images are refused
    image_ids: frozenset[str] | None = None  # images of a file of detections

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 1, 2, ...; empty where they are unknown."""
        return self.names or ()

    def __call__(self, images: Any) -> Detections | list[Detections]:
        """Detects on one image, or on each of a list.

        Args:
          images: a path, bytes of an image file, a PIL image, an array
            `[H, W, 3]` uint8 (RGB), or a list of any of these.

        Returns:
          `Detections`; a list of them for a list.

        Raises:
          UserError: an image is missing, unreadable or of another type.
        """
        from ssd_tf.detect import reading

        is_list = isinstance(images, list | tuple)
        pictures = [
            reading.read_any(image, self.prepare, self.max_pixels)
            for image in (images if is_list else [images])
        ]
        found = self.detect(pictures)
        for each in found:
            if isinstance(each, UserError):
                raise each
        return found if is_list else found[0]

    def prepare(self, pixels: np.ndarray, encoded: bytes | None) -> Any:
        """Returns an image's element of a batch; in any thread.

        Args:
          pixels: RGB uint8 [h, w, 3].
          encoded: the same as JPEG or PNG, where it was a file.
        """
        if self.takes == PIXELS:
            return _resizer(self.input_size)(pixels).numpy()
        if self.takes == ENCODED:
            return encoded or _as_png(pixels)
        return None

    def detect(self, pictures: Sequence["Picture"]) -> list[Detections]:
        """Detects on prepared pictures, in one batch."""
        if not pictures:
            return []
        prepared = [picture.prepared for picture in pictures]
        shapes = np.array([picture.pixels.shape[:2] for picture in pictures])
        batch = {
            "image": np.stack(prepared) if self.takes == PIXELS else prepared,
            "source_id": [picture.source_id.encode() for picture in pictures],
            "height": shapes[:, 0],
            "width": shapes[:, 1],
        }
        found = self.predict(batch)
        return [
            detections_of(found, index, self.class_names, picture.pixels)
            for index, picture in enumerate(pictures)
        ]


@functools.cache
def _resizer(size):
    """Returns the compiled resize to an input size."""
    import tensorflow as tf

    from ssd_tf.input_pipeline import preprocessing

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def resize(image):
        # As within tf.data, and beside what a GPU does.
        with tf.device("CPU:0"):
            return preprocessing.resize(image, size)

    return resize


def _as_png(pixels):
    """Lossless, not compressed: it is decoded at once."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def is_file(path: str | os.PathLike) -> bool:
    """Returns whether a path means a single file, by its name."""
    path = pathlib.Path(path)
    return path.suffix.lower() in _FILES and not path.is_dir()


def is_detections(path: str | os.PathLike) -> bool:
    """Returns whether a path means a file of detections."""
    return is_file(path) and pathlib.Path(path).suffix.lower() == ".json"


def has_options(path: str | os.PathLike) -> bool:
    """Returns whether `DetectionParams` can be chosen: for checkpoints."""
    return not (is_file(path) or saved_model.find_saved_model(path))


def class_names(path: str | os.PathLike) -> tuple[str, ...] | None:
    """Returns the classes of a detector; None where its file has no names.

    Raises:
      UserError: there is no such detector.
    """
    if is_detections(path):
        return coco_json.class_names(_existing(path))
    if is_file(path):
        return description.class_names(_existing(path))
    if found := saved_model.find_saved_model(path):
        return saved_model.read_labels(found)
    from ssd_tf.nets import checkpoint

    return tuple(checkpoint.load_config(path).class_names)


def load_detector(
    path: str | os.PathLike,
    options: DetectionParams = DetectionParams(),
    names: Sequence[str] | None = None,
    category_ids: Sequence[int] | None = None,
) -> Detector:
    """Loads a detector.

    Args:
      path: a train_dir, for its latest checkpoint; a checkpoint in it; an
        exported SavedModel, one version or the folder of versions, for the
        highest; a .tflite or .onnx file; or a .json file of detections.
      options: thresholds and limits of a checkpoint; all others have their
        own.
      names: class names of a file, class 1 first [those inside it, else of
        labels.txt beside it].
      category_ids: element k - 1 is class k's number in a file of detections
        [k].

    Raises:
      UserError: there is no detector, or it cannot be run here.
    """
    if is_file(path):
        path = _existing(path)
        names = names or _stated_names(path)
        if is_detections(path):
            return _of_detections(path, names, category_ids)
        is_onnx = path.suffix.lower() == ".onnx"
        load = runtimes.load_onnx if is_onnx else runtimes.load_tflite
        return _of_runtime(path, load(path), names)
    if found := saved_model.find_saved_model(path):
        return _of_saved_model(found)
    return _of_checkpoint(path, options)


def _existing(path):
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    return path


def _stated_names(path):
    """Returns the names inside a file, or else beside it."""
    from ssd_tf.datasets import labels

    names = class_names(path)
    if names is None and (beside := description.labels_beside(path)):
        names = labels.read(beside)
    return None if names is None else tuple(names)


def _of_checkpoint(path, options):
    import tensorflow as tf

    from ssd_tf.input_pipeline import preprocessing
    from ssd_tf.multibox import boxes
    from ssd_tf.nets import checkpoint

    prefix = checkpoint.find(path)
    net = checkpoint.load_net(prefix)
    params = net.params
    shape = (None, *params.img_shape, 3)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
    def detect(images):
        whitened = preprocessing.whiten(images, params)
        return net.detect(whitened, options)._asdict()

    def predict(batch: Batch) -> dict[str, np.ndarray]:
        found = detect(batch["image"])
        return {name: value.numpy() for name, value in found.items()}

    return Detector(
        predict,
        PIXELS,
        {
            "kind": "checkpoint",
            "checkpoint": str(prefix),
            "step": checkpoint.step_of(prefix),
            "model_name": params.model_name,
            "input_size": list(params.img_shape),
        },
        tuple(checkpoint.load_config(prefix).class_names),
        params.img_shape,
        boxes.to_corners(np.asarray(net.flat_anchors)),
        vars(options),
    )


def _of_saved_model(path):
    run = saved_model.load(path)
    source = {"kind": "SavedModel", "checkpoint": str(path)}
    detector = Detector(
        lambda batch: run(batch["image"]),
        ENCODED,
        source,
        saved_model.read_labels(path),
        max_pixels=_max_pixels(path),
    )
    return _described(detector, path)


def _max_pixels(path):
    """Returns the limit that an export states; older ones state none."""
    try:
        return int((description.load(path) or {})["max_pixels"])
    except (UserError, ValueError, KeyError, TypeError):
        return None


def _of_runtime(path, runtime, names):
    source = {
        "kind": runtime.name,
        "checkpoint": str(path),
        "input_size": list(runtime.input_size),
    }
    detector = Detector(
        lambda batch: runtime.run(np.asarray(batch["image"])),
        PIXELS,
        source,
        names,
        runtime.input_size,
    )
    return _described(detector, path)


def _described(detector, path):
    """Adds what an export of this package states of itself."""
    described = description.read(path)
    if described is None:
        return detector
    source = {"input_size": list(described.input_size), **described.source}
    return dataclasses.replace(
        detector,
        source=detector.source | source,
        input_size=described.input_size,
        anchors=described.anchors,
        options=described.detection,
    )


def _of_detections(path, names, category_ids):
    by_image = coco_json.read(path, category_ids)

    def predict(batch: Batch) -> dict[str, np.ndarray]:
        names = np.asarray(batch["source_id"], object).tolist()
        sizes = zip(batch["height"], batch["width"], strict=True)
        return batch_of(
            [
                coco_json.shares(
                    by_image.get(name.decode(errors="replace")), *map(int, size)
                )
                for name, size in zip(names, sizes, strict=True)
            ]
        )

    return Detector(
        predict,
        IDS,
        {"kind": "detections", "checkpoint": str(path)},
        names,
        image_ids=frozenset(by_image),
    )
