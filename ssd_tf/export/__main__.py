"""Exports a trained net for those who run it, and proves that it runs.

  python -m ssd_tf.export --checkpoint_path=TRAIN_DIR --export_dir=models/ssd

writes models/ssd/1 for TensorFlow Serving (the next time models/ssd/2 ...).
Its default signature takes encoded images and answers with detections:

  image_bytes        string [B]          JPEG, PNG, GIF, BMP or WebP, any size
  detection_boxes    float32 [B, K, 4]   ymin, xmin, ymax, xmax, of the image
  detection_scores   float32 [B, K]      descending, 0 pads
  detection_classes  int32 [B, K]        1-based line of assets/labels.txt
  num_detections     int32 [B]

With --verify=RECORDS and without --formats it exports nothing and only compares
what is there already with the net.

docs/serving.md tells of the other signatures and of the way to a server.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from ssd_tf import command
from ssd_tf.command import flags as command_flags
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.export import flags as export_flags

if TYPE_CHECKING:
    from ssd_tf.nets.ssd import SSDNet

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
    from ssd_tf.export import model as description
    from ssd_tf.export import saved_model

    model = description.Model(net, tuple(class_names))
    return saved_model.write(model, export_dir, options, version=version)


def main() -> None:
    """Reads the flags, exports and verifies."""
    command.require(FLAGS, "checkpoint_path", "export_dir")
    command.load_tensorflow()
    from ssd_tf.export import export, formats
    from ssd_tf.export import formats as subjects
    from ssd_tf.export import model as description

    # Whatever can be refused is refused before anything is made.
    export_flags.check(FLAGS, formats.FORMATS)
    export_dir = pathlib.Path(FLAGS.export_dir)
    names = export_flags.formats_of(FLAGS, subjects.files_of(export_dir))
    export.check(export_dir, names, FLAGS.version)
    options = command_flags.read(DetectionParams, FLAGS)
    model = description.load(FLAGS.checkpoint_path, FLAGS.metrics)
    images = _images(model)
    if names:
        export.export(model, export_dir, _wanted(model, names, options), images)
    else:
        export.verify_all(model, export_dir, options, FLAGS.version, images)


def _images(model):
    """What files are verified on."""
    from ssd_tf.export import images as export_images
    from ssd_tf.export.export import Images

    if not FLAGS.verify:
        return Images(export_images.samples(), None, FLAGS.verify_batch_size)
    encoded, measure = export_images.annotated(
        FLAGS.verify,
        FLAGS.verify_split_name,
        FLAGS.verify_images,
        model.class_names,
    )
    return Images(encoded, measure, FLAGS.verify_batch_size)


def _wanted(model, names, options):
    """What is written, and how."""
    from ssd_tf.export import formats
    from ssd_tf.export import images as export_images
    from ssd_tf.export.decoding import Decoding
    from ssd_tf.export.export import Wanted
    from ssd_tf.export.saved_model import SavedModelOptions

    calibration = ()
    if formats.TFLITE_INT8 in names:
        calibration = export_images.calibration(
            FLAGS.dataset_dir,
            FLAGS.dataset_split_name,
            FLAGS.calibration_images,
            model.net.params.img_shape,
        )
    decoding = Decoding(
        FLAGS.max_image_megapixels * 10**6, FLAGS.bad_images == "empty"
    )
    how = SavedModelOptions(decoding, FLAGS.input_type, export_images.samples())
    return Wanted(
        names, options, how, FLAGS.version, FLAGS.raw_heads, calibration
    )


def run() -> None:
    """The command `ssd-export`."""
    command.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    run()
