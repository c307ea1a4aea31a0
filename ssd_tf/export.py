"""Exports a trained net as a SavedModel for TF Serving.

  python -m ssd_tf.export --checkpoint_path=TRAIN_DIR --export_dir=models/ssd

writes models/ssd/1 (the next time models/ssd/2 ...). Its one signature,
`serving_default`, takes encoded images and answers with detections:

  image_bytes        string [B]          JPEG, PNG or GIF, of any size
  detection_boxes    float32 [B, K, 4]   ymin, xmin, ymax, xmax, of the image
  detection_scores   float32 [B, K]      descending, 0 pads
  detection_classes  int32 [B, K]        1-based line of assets/labels.txt
  num_detections     int32 [B]
"""

import os
import pathlib
from typing import TYPE_CHECKING

from absl import flags

from ssd_tf import command, config_flags, files
from ssd_tf.config import DetectionParams

if TYPE_CHECKING:
    from ssd_tf.nets.ssd import SSDNet

FLAGS = flags.FlagValues()
config_flags.define_checkpoint_path(FLAGS)
flags.DEFINE_string(
    "export_dir",
    None,
    "Where the numbered versions are; TF Serving's base path.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "version",
    None,
    "Number of the version [one more than the highest there is].",
    lower_bound=1,
    flag_values=FLAGS,
)
config_flags.define(FLAGS, DetectionParams())


def export_saved_model(
    net: "SSDNet",
    class_names: tuple[str, ...],
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
    import keras
    import tensorflow as tf

    from ssd_tf import serving

    export_dir = pathlib.Path(export_dir)
    target = export_dir / str(version or serving.next_version(export_dir))
    if target.exists():
        raise command.UserError(
            f"{target}: is there already; choose another --version"
        )
    # Not tf.saved_model.save: TF Serving cannot run what it makes of a Keras
    # 3 model (keras issue 19274).
    archive = keras.export.ExportArchive()
    archive.track(net.model)
    archive.add_endpoint(
        "serving_default",
        serving.bytes_to_detections(net, options),
        input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")],
    )
    # The temporary name is not a number, so that a server that watches the
    # folder does not load half a model.
    with files.new_directory(target) as temporary:
        archive.write_out(str(temporary), verbose=False)
        files.write_text(
            temporary / serving.LABELS_FILE,
            "".join(f"{name}\n" for name in class_names),
        )
    return target


def main() -> None:
    """Reads the flags and exports."""
    command.require(FLAGS, "checkpoint_path", "export_dir")
    command.load_tensorflow()
    from ssd_tf import checkpoint

    net = checkpoint.load_net(FLAGS.checkpoint_path)
    settings = checkpoint.load_config(FLAGS.checkpoint_path)
    target = export_saved_model(
        net,
        settings.class_names,
        FLAGS.export_dir,
        config_flags.read(FLAGS, DetectionParams()),
        FLAGS.version,
    )
    size = sum(path.stat().st_size for path in target.rglob("*"))
    command.say(f"{target}: {size / 1e6:.1f} MB, signature serving_default")


def run() -> None:
    """The command `ssd-export`."""
    command.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    run()
