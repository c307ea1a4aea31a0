"""SavedModels: the folder of an export's versions, and running one of them."""

import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from ssd_tf.command import UserError
from ssd_tf.detect import description
from ssd_tf.detect.runtimes import NAMES

SIGNATURE = "image_bytes"
LABELS_FILE = f"assets/{description.LABELS_FILE}"
MODEL_FILE = f"assets/{description.MODEL_FILE}"
_REMEDY = "expected an export of ssd_tf, see python -m ssd_tf.export --help"
# Encoded images [B] -> arrays by `runtimes.NAMES`.
Predict = Callable[[Sequence[bytes]], dict[str, np.ndarray]]


def load(saved_model: pathlib.Path) -> Predict:
    """Loads the signature `image_bytes` of one version of an export.

    Raises:
      UserError: it cannot be loaded, or has no such signature.
    """
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(saved_model))
    # A damaged file is an OSError, a ValueError, a KeyError, an error of
    # TensorFlow or of protobuf: it depends on where the damage is.
    except Exception as error:
        raise UserError(
            f"{saved_model}: is no SavedModel that can be loaded ({error})"
        ) from error
    if not _detects(loaded.signatures.get(SIGNATURE)):
        there = ", ".join(sorted(loaded.signatures)) or "none"
        raise UserError(
            f"{saved_model}: has no signature {SIGNATURE} that detects "
            f"(signatures there: {there}); {_REMEDY}"
        )

    def predict(images: Sequence[bytes]) -> dict[str, np.ndarray]:
        # Through `loaded`: a signature alone does not keep its variables.
        serve = loaded.signatures[SIGNATURE]
        found = serve(image_bytes=tf.convert_to_tensor(images, tf.string))
        return {name: found[name].numpy() for name in NAMES}

    return predict


def _detects(signature):
    if signature is None:
        return False
    _, inputs = signature.structured_input_signature
    return {*inputs} == {SIGNATURE} and (
        {*signature.structured_outputs} >= {*NAMES}
    )


def read_labels(saved_model: pathlib.Path) -> tuple[str, ...]:
    """Reads the class names of one version of an export.

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


def find_saved_model(path: str | os.PathLike) -> pathlib.Path | None:
    """Finds the SavedModel that a path means; None for a train_dir."""
    path = pathlib.Path(path)
    if (path / "saved_model.pb").is_file():
        return path
    there = versions(path)
    return there[max(there)] if there else None


def versions(export_dir: str | os.PathLike) -> dict[int, pathlib.Path]:
    """Returns the folders of existing versions, by their numbers."""
    return {
        number: path
        for number, path in _numbered(export_dir).items()
        if (path / "saved_model.pb").is_file()
    }


def _numbered(export_dir):
    """Returns all that a server would take for a version; 7 may be called
    0007.
    """
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
    """Finds what has this number, whether it is a version or not."""
    return _numbered(export_dir).get(number)


def next_version(export_dir: str | os.PathLike) -> int:
    """Returns one more than the highest number, also of invalid versions."""
    return max(_numbered(export_dir), default=0) + 1
