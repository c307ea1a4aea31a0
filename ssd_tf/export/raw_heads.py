"""Runs a TFLite file of raw heads as its users have to: with a decoding and a
suppression of their own, and of the file nothing but what is in it."""

import functools
import os
from collections.abc import Callable

import numpy as np

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.detect import description
from ssd_tf.detect.runtimes import Quantization, from_pixels, stack

NAMES = ("logits", "localisations", "anchors")


def load(
    path: str | os.PathLike,
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Loads a file; its images are run one by one.

    Returns:
      A function from RGB float32 `[B, H, W, 3]` in 0..255 to detections, with
      the thresholds that the file's model.json states.

    Raises:
      UserError: it has no model.json, or no raw heads.
    """
    detect = _detect(path)
    litert = command.import_extra("ai_edge_litert.interpreter", "export")
    interpreter = litert.Interpreter(str(path))
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    missing = {*NAMES} - {*runner.get_output_details()}
    if missing:
        raise UserError(f"{path}: has no output {sorted(missing)[0]}")
    ((given, details),) = runner.get_input_details().items()
    quantization = Quantization(*details["quantization"])

    def run_one(image: np.ndarray) -> dict[str, np.ndarray]:
        pixels = from_pixels(image[None], details["dtype"], quantization)
        heads = runner(**{given: pixels})
        found = detect(*(heads[name] for name in NAMES))
        return {key: x.numpy() for key, x in found._asdict().items()}

    return lambda images: stack([run_one(image) for image in images])


def _detect(path):
    """From the three outputs to detections."""
    stated = description.load(path)
    if stated is None:
        raise UserError(f"{path}: has no model.json inside; export it again")
    import tensorflow as tf

    from ssd_tf.multibox import detection

    detect = functools.partial(
        detection.detect,
        prior_scaling=stated["anchors"]["prior_scaling"],
        **stated["detection"],
    )
    return tf.function(
        lambda logits, localisations, anchors: detect(
            logits, localisations, anchors[0]
        )
    )
