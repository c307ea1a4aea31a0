"""Exports a trained net for those who run it, and proves that it runs.

  python -m ssd_tf.export --checkpoint_path=TRAIN_DIR --export_dir=models/ssd

writes models/ssd/1 for TensorFlow Serving (the next time models/ssd/2 ...).
Its default signature takes encoded images and answers with detections:

  image_bytes        string [B]          JPEG, PNG, GIF, BMP or WebP, any size
  detection_boxes    float32 [B, K, 4]   ymin, xmin, ymax, xmax, of the image
  detection_scores   float32 [B, K]      descending, 0 pads
  detection_classes  int32 [B, K]        1-based line of assets/labels.txt
  num_detections     int32 [B]

docs/serving.md tells of the other signatures and of the way to a server.
"""

import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from ssd_tf import command, config_flags, export_flags
from ssd_tf.command import UserError
from ssd_tf.config import DetectionParams

if TYPE_CHECKING:
    from ssd_tf.nets.ssd import SSDNet

# Pictures of the built-in data that every export is run on.
_SAMPLE_SIZE = (240, 320)  # height, width

FLAGS = flags.FlagValues()
export_flags.define(FLAGS)


def export_saved_model(
    net: "SSDNet",
    class_names: Sequence[str],
    export_dir: str | os.PathLike,
    options: DetectionParams = DetectionParams(),
    version: int | None = None,
) -> pathlib.Path:
    """Writes a version, which appears as a whole or not at all.

    Args:
      net: with its weights.
      class_names: without the background.
      export_dir: folder of the versions.
      options: of the detections that the model answers with.
      version: its number; by default one more than the highest there is.

    Returns:
      The version's folder.

    Raises:
      UserError: the version is there already.
    """
    from ssd_tf.exporting import description, saved_model

    model = description.Model(net, tuple(class_names))
    return saved_model.write(model, export_dir, options, version=version)


def main() -> None:
    """Reads the flags, exports and verifies."""
    command.require(FLAGS, "checkpoint_path", "export_dir")
    command.load_tensorflow()
    from ssd_tf.exporting import description, formats

    export_flags.check(FLAGS, formats.FORMATS)
    model = description.load(FLAGS.checkpoint_path, FLAGS.metrics)
    options = config_flags.read(FLAGS, DetectionParams())
    for name in FLAGS.formats:
        command.say(f"{_write(model, name, options)}")
    _verify(model, options)


def _write(model, name, options):
    """Writes one format; its path."""
    from ssd_tf.exporting import formats, saved_model, server_files
    from ssd_tf.exporting.decoding import Decoding

    export_dir = pathlib.Path(FLAGS.export_dir)
    if name == formats.SAVED_MODEL:
        decoding = Decoding(
            FLAGS.max_image_megapixels * 10**6, FLAGS.bad_images == "empty"
        )
        how = saved_model.SavedModelOptions(
            decoding, FLAGS.input_type, samples()
        )
        written = saved_model.write(
            model, export_dir, options, how, FLAGS.version
        )
        server_files.write(export_dir)
        return written
    calibration = _calibration(model.net) if name == formats.TFLITE_INT8 else ()
    written = formats.write_file(
        model, name, export_dir, options, FLAGS.raw_heads, calibration
    )
    formats.write_companions(model, export_dir, options)
    return written


def _calibration(net):
    """Images `[H, W, 3]` of --dataset_dir, as the network's input sees them."""
    from ssd_tf import preprocessing
    from ssd_tf.datasets import ground_truth

    truth = ground_truth.open_split(FLAGS.dataset_dir, FLAGS.dataset_split_name)
    for record in truth.read().take(FLAGS.calibration_images):
        image = preprocessing.decode(record["image"])
        yield preprocessing.resize(image, net.params.img_shape).numpy()


def _verify(model, options):
    """Compares everything in --export_dir with the net.

    Raises:
      UserError: something is beyond tolerance.
    """
    from ssd_tf.exporting import verify

    export_dir = pathlib.Path(FLAGS.export_dir)
    wanted = verify.subjects(export_dir)
    encoded, measure = samples(), None
    if FLAGS.verify:
        encoded, measure = _annotated(model.class_names)
    entries = verify.verify(
        model.net, options, wanted, encoded, measure, FLAGS.verify_batch_size
    )
    verify.print_table(entries, FLAGS.verify_batch_size)
    verify.write(export_dir, entries)
    failed = [entry for entry in entries if entry.get("failures")]
    for entry in failed:
        command.say(f"{entry['path']}: {'; '.join(entry['failures'])}")
    if failed:
        raise UserError(
            f"{export_dir}: {len(failed)} of {len(wanted)} files do not give "
            "what the net gives; see verify.json"
        )


def _annotated(class_names):
    """Encoded images of --verify, and the function from detections to mAP."""
    from ssd_tf import evaluate, input_pipeline, predictors
    from ssd_tf.datasets import ground_truth
    from ssd_tf.detection import Detections
    from ssd_tf.runtimes import NAMES

    truth = ground_truth.open_split(
        FLAGS.verify, FLAGS.verify_split_name, class_names=class_names
    )
    data = truth.read().take(FLAGS.verify_images)
    encoded = [record["image"].numpy() for record in data]
    batches = input_pipeline.make_for_eval(
        data, None, 1, lambda record: predictors.with_size(record)[0]
    )

    def measure(found) -> float:
        index = itertools.count()

        def predict(_):
            at = next(index)
            return Detections(*(found[name][at : at + 1] for name in NAMES))

        images = evaluate.collect(
            predict, batches, len(class_names), quiet=True
        )
        metrics, _ = evaluate.measure(images, class_names)
        return metrics["AP_VOC12/mAP"]

    return encoded, measure


def samples() -> list[bytes]:
    """Two pictures of the built-in data, as JPEG."""
    from ssd_tf.datasets import shapes

    rng = np.random.default_rng(0)
    return [
        shapes.draw(rng, *_SAMPLE_SIZE, f"sample-{index}").image_bytes
        for index in range(2)
    ]


def run() -> None:
    """The command `ssd-export`."""
    command.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    run()
