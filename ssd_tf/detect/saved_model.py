"""From encoded images to detections, by a train_dir or by an export.

Also the layout of an export: numbered versions with their labels.
"""

import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from ssd_tf.command import UserError
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.detect.model_tensors import NAMES
from ssd_tf.export import signatures
from ssd_tf.nets import checkpoint
from ssd_tf.nets.ssd import SSDNet

LABELS_FILE = "assets/labels.txt"
MODEL_FILE = "assets/model.json"
_BYTES_SIGNATURE = "image_bytes"
_REMEDY = "expected an export of ssd_tf, see python -m ssd_tf.export --help"
# Encoded images [B] -> the four tensors of a detection as NumPy arrays.
Predict = Callable[[Sequence[bytes]], dict[str, np.ndarray]]


def make_predict(
    net: SSDNet, options: DetectionParams = DetectionParams()
) -> Predict:
    """The exported `image_bytes`, compiled, from bytes to NumPy arrays."""
    image_bytes = signatures.make(net, options)[_BYTES_SIGNATURE]
    serve = tf.function(
        image_bytes.function, input_signature=image_bytes.inputs
    )
    return lambda images: _as_arrays(serve(_as_tensor(images)))


def load_predictor(
    path: str | os.PathLike, options: DetectionParams = DetectionParams()
) -> tuple[Predict, tuple[str, ...]]:
    """A function from encoded images to detections, whatever the model is.

    Args:
      path: a train_dir, a checkpoint, or an export (the folder of its
        versions, for the highest, or one version).
      options: of the detections; an exported model has its own.

    Returns:
      The function, and the class names.

    Raises:
      UserError: there is no model, or it is no export of this package.
    """
    saved_model = find_saved_model(path)
    if saved_model is None:
        predict = make_predict(checkpoint.load_net(path), options)
        return predict, checkpoint.load_config(path).class_names
    return load_saved_model(saved_model), read_labels(saved_model)


def load_saved_model(saved_model: pathlib.Path) -> Predict:
    """The signature `image_bytes` of one version of an export.

    Raises:
      UserError: it cannot be loaded, or has no such signature.
    """
    loaded = _load(saved_model)
    if not _detects(loaded.signatures.get(_BYTES_SIGNATURE)):
        there = ", ".join(sorted(loaded.signatures)) or "none"
        raise UserError(
            f"{saved_model}: has no signature {_BYTES_SIGNATURE} that detects "
            f"(signatures there: {there}); {_REMEDY}"
        )

    def predict(images: Sequence[bytes]) -> dict[str, np.ndarray]:
        # Through `loaded`: a signature alone does not keep its variables.
        serve = loaded.signatures[_BYTES_SIGNATURE]
        return _as_arrays(serve(image_bytes=_as_tensor(images)))

    return predict


def _load(saved_model):
    try:
        return tf.saved_model.load(str(saved_model))
    # A damaged file is an OSError, a ValueError, a KeyError, an error of
    # TensorFlow or of protobuf: it depends on where the damage is.
    except Exception as error:
        raise UserError(
            f"{saved_model}: is no SavedModel that can be loaded ({error})"
        ) from error


def _detects(signature):
    if signature is None:
        return False
    _, inputs = signature.structured_input_signature
    return {*inputs} == {_BYTES_SIGNATURE} and (
        {*signature.structured_outputs} >= {*NAMES}
    )


def read_labels(saved_model: pathlib.Path) -> tuple[str, ...]:
    """The class names of one version of an export.

    Raises:
      UserError: it has none.
    """
    path = saved_model / LABELS_FILE
    try:
        return tuple(path.read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: no class names in it ({error}); {_REMEDY}"
        ) from error


def _as_tensor(images):
    return tf.constant(list(images), tf.string)


def _as_arrays(found):
    return {name: found[name].numpy() for name in NAMES}


def find_saved_model(path: str | os.PathLike) -> pathlib.Path | None:
    """The SavedModel that a path means, or None for a train_dir."""
    path = pathlib.Path(path)
    if (path / "saved_model.pb").is_file():
        return path
    there = versions(path)
    return there[max(there)] if there else None


def versions(export_dir: str | os.PathLike) -> dict[int, pathlib.Path]:
    """Folders of the versions that are there, by their numbers."""
    return {
        number: path
        for number, path in _numbered(export_dir).items()
        if (path / "saved_model.pb").is_file()
    }


def _numbered(export_dir):
    """All that a server would take for a version; 7 may be called 0007."""
    export_dir = pathlib.Path(export_dir)
    if not export_dir.is_dir():
        return {}
    return {
        int(path.name): path
        for path in sorted(export_dir.iterdir())
        if path.name.isascii() and path.name.isdecimal()
    }


def find_version(
    export_dir: str | os.PathLike, number: int
) -> pathlib.Path | None:
    """What has this number, if it is a version or not."""
    return _numbered(export_dir).get(number)


def next_version(export_dir: str | os.PathLike) -> int:
    """One more than the highest number there is, also of what is no version."""
    return max(_numbered(export_dir), default=0) + 1
