"""Writes the SavedModel that TensorFlow Serving runs.

A version is written under a name that is no number and renamed when it has
run: a server that watches the folder never loads half a model, or a bad one.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from ssd_tf.command import files
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.detect import saved_model
from ssd_tf.export import publishing, signatures, warmup
from ssd_tf.export.decoding import Decoding
from ssd_tf.export.model import Model, describe
from ssd_tf.export.signatures import Signature

DEFAULT = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY


class SavedModelOptions(NamedTuple):
    """Options of a SavedModel."""

    decoding: Decoding = Decoding()
    # The signature that a client gets who names none.
    input_type: str = "image_bytes"
    # Encoded images that it runs on before it is published, and whose
    # requests a server warms up with.
    warmup_images: Sequence[bytes] = ()
    # Images in the largest of them: a server refuses more than its own limit.
    warmup_batch: int = warmup.BATCH_SIZE


def write(
    model: Model,
    export_dir: str | os.PathLike,
    options: DetectionParams = DetectionParams(),
    how: SavedModelOptions = SavedModelOptions(),
    version: int | None = None,
) -> pathlib.Path:
    """Writes a version, which appears as a whole or not at all.

    Args:
      model: with its weights.
      export_dir: folder of the versions.
      options: of the detections that the model answers with.
      how: see there.
      version: its number; by default one more than the highest there is.

    Returns:
      The version's folder.

    Raises:
      UserError: the version is there already.
    """
    export_dir = pathlib.Path(export_dir)
    publishing.check_version(export_dir, version)
    with publishing.staging(export_dir) as folder:
        built = build(model, folder / "saved_model", options, how)
        return publishing.publish_version(built, export_dir, version)


def build(
    model: Model,
    folder: pathlib.Path,
    options: DetectionParams = DetectionParams(),
    how: SavedModelOptions = SavedModelOptions(),
) -> pathlib.Path:
    """Writes what a version consists of, and runs it; the folder.

    Args:
      model, options, how: as for `write`.
      folder: a new one, which no server may see yet.
    """
    named = signatures.make(model.net, options, how.decoding)
    write_signatures(model.net.model, named, folder, how.input_type)
    _write_assets(model, options, how, named, folder)
    warmup.run_and_record(
        folder, how.warmup_images, how.input_type, how.warmup_batch
    )
    return folder


def write_signatures(
    network: keras.Model,
    named: dict[str, Signature],
    folder: pathlib.Path,
    default: str,
) -> None:
    """Writes the graph and the variables, not the assets.

    Args:
      network: that the functions call.
      named: functions by the names of their signatures.
      folder: for the SavedModel.
      default: the one that is `serving_default`, too.
    """
    # The root holds the bare variables and not the Keras model: of that,
    # tf.saved_model.save makes copies which TensorFlow Serving does not find
    # (keras issue 19274), and keras.export stores every variable twice.
    root = tf.Module()
    root.weights = [variable.value for variable in network.variables]
    functions = {
        name: tf.function(each.function, input_signature=each.inputs)
        for name, each in named.items()
    }
    if default == "image_tensor":
        # Clients of TF Object Detection API call the loaded model itself.
        root.__call__ = functions[default]
    concrete = {
        name: function.get_concrete_function()
        for name, function in functions.items()
    }
    concrete[DEFAULT] = concrete[default]
    tf.saved_model.save(root, str(folder), signatures=concrete)


def _write_assets(model, options, how, named, folder):
    names = "".join(f"{name}\n" for name in model.class_names)
    files.write_text(folder / saved_model.LABELS_FILE, names)
    described = describe(model, options) | {
        "max_pixels": how.decoding.max_pixels,
        "bad_images": "empty" if how.decoding.bad_is_empty else "error",
        "signatures": {
            name: {spec.name: _spec(spec) for spec in each.inputs}
            for name, each in named.items()
        }
        | {DEFAULT: how.input_type},
    }
    files.write_json(folder / saved_model.MODEL_FILE, described)


def _spec(spec: tf.TensorSpec) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}
