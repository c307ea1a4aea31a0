"""The split that a detector is evaluated on, numbered as the detector does.

Joins detectors and data sets for the command; neither knows of the other.
"""

import os

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.datasets import ground_truth, labels
from ssd_tf.datasets.ground_truth import GroundTruth
from ssd_tf.detect import detectors, stated_names


def open_split(
    path: str | os.PathLike,
    dataset_dir: str | os.PathLike,
    split: str,
    labels_file: str | os.PathLike | None = None,
    unreadable_shards: str = "fatal",
    image_dir: str | os.PathLike | None = None,
) -> GroundTruth:
    """The ground truth with the classes of a detector.

    Args:
      path: of the detector, see `predictors`.
      dataset_dir, split, unreadable_shards, image_dir: see
        `ground_truth.open_split`.
      labels_file: names of the classes of a detector that is a single file.

    Raises:
      UserError: no such detector or data, classes that nobody names or that
        are not those of the data.
    """
    names = _class_names(path, labels_file)
    truth = ground_truth.open_split(
        dataset_dir, split, unreadable_shards, image_dir, names
    )
    if truth.kind == "voc" and names is None:
        raise UserError(
            f"{path}: does not name its classes, and a VOC tree does not "
            "number them; give the detector's labels.txt by --labels"
        )
    return truth


def _class_names(path, labels_file):
    """The classes of the detector, as a tuple; None where nobody says."""
    if not detectors.is_file(path):
        if labels_file:
            raise UserError(
                f"--labels={labels_file}: only for a .tflite, .onnx or .json "
                f"file; {path} names its classes itself"
            )
        return detectors.class_names(path)
    if labels_file:
        return tuple(labels.read(labels_file))
    stated = detectors.class_names(path)
    if stated:
        return tuple(labels.check(stated, str(path)))
    file = stated_names.beside(path)
    if file is None:
        return None
    command.say(f"class names: {file}")
    return tuple(labels.read(file))
