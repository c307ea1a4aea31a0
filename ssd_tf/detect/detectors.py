"""Whatever can be evaluated, behind one function from a batch to detections.

A train_dir or checkpoint, an exported SavedModel, a TFLite or ONNX file, or the
detections that somebody has written into COCO's JSON.
"""

import functools
import os
import pathlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ssd_tf.command import UserError
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.detect import coco_json, description, runtimes, stated_names
from ssd_tf.detect import saved_model as serving
from ssd_tf.input_pipeline import batches, preprocessing
from ssd_tf.multibox import boxes
from ssd_tf.multibox.detection import Detections
from ssd_tf.nets import checkpoint

Example = Mapping[str, tf.Tensor]


class Predictor(NamedTuple):
    """A detector, or what one has left."""

    # From a parsed record to what it wants in its batches; within tf.data.
    prepare: Callable[[Example], Example]
    # From such a batch to NumPy arrays.
    predict: Callable[[Example], Detections]
    source: dict[str, Any]  # what it is, for a report
    input_size: tuple[int, int] | None = None  # height, width, pixels
    anchors: np.ndarray | None = None  # float32 [A, 4], corners
    protocol: Mapping[str, Any] = types.MappingProxyType(
        {}
    )  # how it detects, where that is known
    # Of a file of detections: the images that it has some of.
    image_ids: frozenset[str] | None = None


def is_detections(path: str | os.PathLike) -> bool:
    """Whether a path means a file of detections, which needs no images."""
    path = pathlib.Path(path)
    return path.suffix == ".json" and not path.is_dir()


def has_options(path: str | os.PathLike) -> bool:
    """Whether `DetectionParams` can be chosen: only for a checkpoint."""
    return not (is_file(path) or serving.find_saved_model(path))


def is_file(path: str | os.PathLike) -> bool:
    """Whether a path means a single file, by its name."""
    return pathlib.Path(path).suffix in (".json", ".tflite", ".onnx")


def class_names(path: str | os.PathLike) -> tuple[str, ...] | None:
    """The classes of a detector; None where its file does not say.

    Raises:
      UserError: there is no such detector.
    """
    if is_file(path):
        return stated_names.inside(_existing(path))
    saved_model = serving.find_saved_model(path)
    if saved_model:
        return serving.read_labels(saved_model)
    return checkpoint.load_config(path).class_names


def load(
    path: str | os.PathLike,
    options: DetectionParams,
    category_ids: Sequence[int],
    dataset_dir: str | os.PathLike = "the data",
) -> Predictor:
    """Loads a detector.

    Args:
      path: of any kind above; an export may be the folder of its versions.
      options: of a checkpoint's detections; all others have their own.
      category_ids: of the classes in COCO's JSON.
      dataset_dir: where these classes are from, for messages.

    Raises:
      UserError: there is none, or it cannot be run here; when it predicts: it
        finds a class that there is not, or what is no number.
    """
    path = _existing(path)
    if is_detections(path):
        return _of_detections(path, category_ids)
    found = _load_model(path, options)

    def predict(batch: Example) -> Detections:
        detections = found.predict(batch)
        _check(detections, path, dataset_dir, len(category_ids))
        return detections

    return found._replace(predict=predict)


def _load_model(path, options):
    if is_file(path):
        is_onnx = path.suffix == ".onnx"
        load_file = runtimes.load_onnx if is_onnx else runtimes.load_tflite
        return _of_runtime(path, load_file(path))
    saved_model = serving.find_saved_model(path)
    if saved_model:
        return _of_saved_model(saved_model)
    return _of_checkpoint(checkpoint.find(path), options)


def _existing(path):
    path = pathlib.Path(path)
    if is_file(path) and not path.is_file():
        raise UserError(f"{path}: no such file; see --checkpoint_path")
    return path


def _of_checkpoint(prefix, options):
    net = checkpoint.load_net(prefix)
    detect = tf.function(lambda images: net.detect(images, options))

    def predict(batch: Example) -> Detections:
        return Detections(*(x.numpy() for x in detect(batch["image"])))

    return Predictor(
        functools.partial(batches.prepare_for_eval, params=net.params),
        predict,
        {
            "kind": "checkpoint",
            "checkpoint": str(prefix),
            "step": checkpoint.step_of(prefix),
            "model_name": net.params.model_name,
            "input_size": list(net.params.img_shape),
        },
        net.params.img_shape,
        boxes.to_corners(np.asarray(net.flat_anchors)),
        {"detections": vars(options)},
    )


def with_size(record: Example) -> tuple[Example, tf.Tensor]:
    """A record with its image's true size, and the image uint8 `[h, w, 3]`."""
    image = preprocessing.decode(record["image"])
    size = {"height": tf.shape(image)[0], "width": tf.shape(image)[1]}
    return {**record, **size}, image


def _of_saved_model(path):
    run = serving.load_saved_model(path)

    def predict(batch: Example) -> Detections:
        return Detections(**run(batch["image"].numpy().tolist()))

    return _with_description(
        Predictor(
            lambda record: with_size(record)[0],
            predict,
            {"kind": "SavedModel", "checkpoint": str(path)},
        ),
        path,
    )


def _with_description(predictor, path):
    """With what an export of this package tells of itself."""
    described = description.read(path)
    if described is None:
        return predictor
    source = {"input_size": list(described.input_size), **described.source}
    return predictor._replace(
        source=predictor.source | source,
        input_size=described.input_size,
        anchors=described.anchors,
        protocol={"detections": described.detection},
    )


def _check(found, path, dataset_dir, number):
    """Refuses what is no detection, and classes that would be others."""
    for name, values in (
        ("boxes", found.detection_boxes),
        ("scores", found.detection_scores),
    ):
        if not np.isfinite(values).all():
            raise UserError(
                f"{path}: has found {name} that are no numbers (NaN or "
                "infinite); its weights are damaged, or it was converted wrong"
            )
    classes = found.detection_classes
    strange = classes[(classes < 0) | (classes > number)]
    if strange.size:
        raise UserError(
            f"{path}: has found class {strange[0]}, but {dataset_dir} has "
            f"{number} classes; evaluate it on the data that it was trained "
            "for, or name its own classes by --labels"
        )


def _of_runtime(path, runtime):
    def prepare(record: Example) -> Example:
        record, image = with_size(record)
        return {
            **record,
            "image": preprocessing.resize(image, runtime.input_size),
        }

    def predict(batch: Example) -> Detections:
        found = runtime.run(batch["image"].numpy())
        return Detections(*(found[name] for name in runtimes.NAMES))

    source = {
        "kind": runtime.name,
        "checkpoint": str(path),
        "input_size": list(runtime.input_size),
    }
    return _with_description(
        Predictor(prepare, predict, source, runtime.input_size), path
    )


def _of_detections(path, category_ids):
    by_image = coco_json.read(path, category_ids)

    def prepare(record: Example) -> Example:
        # Other tools' records do not always state the size.
        stated = (record["height"] > 0) & (record["width"] > 0)
        size = tf.stack([record["height"], record["width"]])
        size = tf.cond(
            stated,
            lambda: tf.cast(size, tf.int32),
            lambda: tf.shape(preprocessing.decode(record["image"]))[:2],
        )
        others = {key: x for key, x in record.items() if key != "image"}
        return {**others, "height": size[0], "width": size[1]}

    def predict(batch: Example) -> Detections:
        found = [
            by_image.get(name.decode(errors="replace"), coco_json.NOTHING)
            for name in batch["source_id"].numpy()
        ]
        sizes = np.stack([batch["height"], batch["width"]] * 2, axis=-1)
        return _padded(found, sizes)

    return Predictor(
        prepare,
        predict,
        {"kind": "detections", "checkpoint": str(path)},
        image_ids=frozenset(by_image),
    )


def _padded(found, sizes):
    """Detections of images in pixels -> a batch of shares of the images."""
    counts = np.array([len(each.scores) for each in found])
    shape = len(found), counts.max(initial=0)
    result = Detections(
        np.zeros((*shape, 4)), np.zeros(shape), np.zeros(shape, int), counts
    )
    for index, (each, count) in enumerate(zip(found, counts, strict=True)):
        result.detection_boxes[index, :count] = each.boxes / sizes[index]
        result.detection_scores[index, :count] = each.scores
        result.detection_classes[index, :count] = each.classes
    return result
