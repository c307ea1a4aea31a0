"""Exports a trained net for its runtimes, and proves that the files run.

  python -m ssd_tf.export --checkpoint_path=TRAIN_DIR --export_dir=models/ssd

writes models/ssd/1 for TensorFlow Serving (the next time models/ssd/2 ...).
Its default signature takes encoded images and returns detections:

  image_bytes        string [B]          JPEG, PNG, GIF, BMP or WebP, any size
  detection_boxes    float32 [B, K, 4]   ymin, xmin, ymax, xmax, of the image
  detection_scores   float32 [B, K]      descending, 0 pads
  detection_classes  int32 [B, K]        1-based line of assets/labels.txt
  num_detections     int32 [B]

With --verify=RECORDS and without --formats it exports nothing and only compares
the existing files with the net.

docs/serving.md describes the other signatures and the way to a server.
"""

from ssd_tf import command
from ssd_tf.command.settings import require
from ssd_tf.config.export import ExportOptions


def main(options: ExportOptions) -> None:
    """Exports and verifies."""
    require(options, "checkpoint_path", "export_dir")
    command.load_tensorflow()
    from ssd_tf.export import export

    export.run(options)


def run() -> None:
    """Runs the command `ssd-export`."""
    command.run(main, ExportOptions, __doc__)


if __name__ == "__main__":
    run()
