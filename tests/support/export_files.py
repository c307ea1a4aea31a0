"""Writes a trained net as TFLite and ONNX files, in a process of its own.

    python export_files.py TRAIN_DIR OUTPUT_DIR

OUTPUT_DIR gets model.tflite (float pixels in, batch 1) and model.onnx (batch
free). Converters warn, log and change global state: not in the tests' process.
"""

import pathlib
import subprocess
import sys

import keras
import tensorflow as tf

from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.input_pipeline import preprocessing
from ssd_tf.nets import checkpoint


def save(net, folder, batch_size):
    """A SavedModel from pixels to detections."""

    def serve(images):
        whitened = preprocessing.whiten(images, net.params)
        return net.detect(whitened, DetectionParams())._asdict()

    shape = (batch_size, *net.params.img_shape, 3)
    archive = keras.export.ExportArchive()
    archive.track(net.model)
    archive.add_endpoint(
        "serving_default",
        serve,
        input_signature=[tf.TensorSpec(shape, tf.float32, name="images")],
    )
    archive.write_out(str(folder), verbose=False)


def main(train_dir, output_dir):
    """Converts twice."""
    net, output_dir = checkpoint.load_net(train_dir), pathlib.Path(output_dir)
    save(net, output_dir / "one", 1)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(output_dir / "one"), signature_keys=["serving_default"]
    )
    (output_dir / "model.tflite").write_bytes(converter.convert())
    save(net, output_dir / "any", None)
    convert = [sys.executable, "-m", "tf2onnx.convert", "--opset=17"]
    convert += ["--saved-model", output_dir / "any"]
    subprocess.run(
        [*map(str, convert), "--output", str(output_dir / "model.onnx")],
        check=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
