"""Writes tiny TFLite detectors, in a process of its own: converters log a lot.

    python small_models.py FOLDER

All find one box, of class 5.
"""

import pathlib
import sys

import tensorflow as tf

SIZE = 8


class Detector(tf.Module):
    """Four outputs by their names."""

    def found(self, images):
        """The outputs depend on the input, so that it is not left out."""
        zero = tf.reduce_mean(images) * 0
        whole = tf.cast(zero, tf.int32)
        return {
            "detection_boxes": tf.constant([[[0.1, 0.2, 0.5, 0.6]]]) + zero,
            "detection_scores": tf.constant([[0.9]]) + zero,
            "detection_classes": tf.constant([[5]]) + whole,
            "num_detections": tf.constant([1]) + whole,
        }

    def doubled(self, numbers):
        """A signature that has nothing to do with detecting."""
        return {"numbers": 2 * numbers}


def _signature(function, shape):
    spec = tf.TensorSpec(shape, tf.float32, name=function.__name__)
    return tf.function(function, input_signature=[spec])


def _converter(folder, module, signatures):
    found = {
        key: function.get_concrete_function()
        for key, function in signatures.items()
    }
    tf.saved_model.save(module, str(folder / "saved"), signatures=found)
    return tf.lite.TFLiteConverter.from_saved_model(
        str(folder / "saved"), signature_keys=list(found)
    )


def main(folder):
    """Writes them all."""
    folder, detector = pathlib.Path(folder), Detector()
    image = [1, SIZE, SIZE, 3]
    for name, shape in (
        ("fits", image),
        ("free", [1, None, None, 3]),
        ("channels_first", [1, 3, SIZE, SIZE]),
        ("pairs", [2, SIZE, SIZE, 3]),
    ):
        signatures = {"serving_default": _signature(detector.found, shape)}
        content = _converter(folder, detector, signatures).convert()
        (folder / f"{name}.tflite").write_bytes(content)
    # The first of two is not the one that detects.
    signatures = {
        "a": _signature(detector.doubled, [1, 4]),
        "detect": _signature(detector.found, image),
    }
    content = _converter(folder, detector, signatures).convert()
    (folder / "two.tflite").write_bytes(content)


if __name__ == "__main__":
    main(*sys.argv[1:])
