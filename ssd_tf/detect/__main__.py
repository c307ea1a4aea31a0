"""Detects in images, videos, cameras and TFRecords.

  python -m ssd_tf.detect --model=TRAIN_DIR --input=photos --output_dir=found
  python -m ssd_tf.detect --model=models/ssd/model.onnx \\
      --input="photos/**/*.jpg,clip.mp4,webcam" --output_dir=found \\
      --formats=json,csv,coco,voc --save_crops

writes every picture and video with boxes, class names and scores into found/,
and found/detections.json: per image its size and its detections (class
number, name, score, box as ymin, xmin, ymax, xmax in [0, 1]), per frame of a
video also its number and time. Ctrl-C ends a video or camera; what was
detected until then is written.
"""

import pathlib

from absl import flags
from PIL import Image

from ssd_tf import command
from ssd_tf.command import UserError, settings
from ssd_tf.command import flags as command_flags
from ssd_tf.command.signals import stop_requests
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.datasets import labels
from ssd_tf.detect import flags as detect_flags
from ssd_tf.detect import inputs, video

FLAGS = flags.FlagValues()
detect_flags.define(FLAGS)


def _check_formats(known):
    for name in FLAGS.formats:
        if name not in known:
            raise UserError(
                f"--formats={name}: expected some of {', '.join(known)}, "
                "separated by commas"
            )


def _folders():
    """What is asked for and is a folder in the output folder."""
    crops = [inputs.CROPS_DIR] if FLAGS.save_crops else []
    voc = [inputs.VOC_DIR] if "voc" in FLAGS.formats else []
    return crops + voc


def _load_model():
    """The detector and its class names."""
    from ssd_tf.detect import models, stated_names

    given = [
        field.flag
        for field in settings.fields(DetectionParams)
        if FLAGS[field.flag].present
    ]
    if given and not models.has_options(FLAGS.model):
        raise UserError(
            f"--{given[0]}: an exported model has its own; give it to "
            "ssd_tf.export, or name a train_dir"
        )
    if FLAGS.labels and not models.is_file(FLAGS.model):
        raise UserError(
            f"--labels={FLAGS.labels}: only for .tflite and .onnx files; "
            f"{FLAGS.model} has its own"
        )
    options = command_flags.read(DetectionParams, FLAGS)
    model = models.load(FLAGS.model, options)
    if FLAGS.labels:
        return model, labels.read(FLAGS.labels)
    if model.class_names is not None:
        return model, model.class_names
    beside = stated_names.beside(FLAGS.model)
    return model, labels.read(beside) if beside else []


def _report(summary, stopped_by):
    """Says what was done.

    Raises:
      UserError: it is not all that was asked for, or nothing.
    """
    where = f"in {FLAGS.output_dir}"
    for file, reason in summary.unreadable:
        command.say(f"not readable: {file}: {reason}")
    if stopped_by:
        raise UserError(
            f"stopped by {stopped_by} after {summary.pictures} images, "
            f"whose results are {where}"
        )
    if not summary.pictures:
        raise UserError(f"--input={FLAGS.input}: no readable image in it")
    command.say(
        f"{summary.objects} objects with score >= {FLAGS.min_score} on "
        f"{summary.pictures} images ({len(summary.unreadable)} not readable) "
        f"{where}"
    )


def main() -> None:
    """Reads the flags and detects."""
    command.require(FLAGS, "model", "input", "output_dir")
    naming = inputs.Naming()
    parts = inputs.split_list(FLAGS.input)
    sources = inputs.find(parts, FLAGS.dataset_split_name, naming)
    inputs.check_output_dir(FLAGS.output_dir, sources)
    inputs.check_unused(FLAGS.output_dir, _folders())
    if any(isinstance(each, inputs.Video) for each in sources):
        video.import_cv2()
    command.load_tensorflow()
    from ssd_tf.detect import formats
    from ssd_tf.detect import run as detect_run
    from ssd_tf.detect.outputs import Outputs
    from ssd_tf.detect.reading import Reader

    _check_formats(formats.FORMATS)
    model, class_names = _load_model()
    max_pixels = FLAGS.max_image_megapixels * 10**6
    # Pillow's own limit only warns; headers are compared with ours.
    Image.MAX_IMAGE_PIXELS = None
    outputs = Outputs(
        pathlib.Path(FLAGS.output_dir),
        class_names,
        FLAGS.min_score,
        FLAGS.formats,
        FLAGS.save_pictures,
        FLAGS.save_crops,
    )
    with stop_requests() as stop:
        reader = Reader(
            model.prepare,
            naming,
            min(max_pixels, model.max_pixels or max_pixels),
            FLAGS.max_frames,
            lambda: stop.received is not None,
        )
        summary = detect_run.run(
            model, sources, reader, outputs, FLAGS.batch_size
        )
    # Nothing but Ctrl-C ends a camera.
    is_endless = not any(source.path for source in sources)
    _report(summary, None if is_endless else stop.received)


def run() -> None:
    """The command `ssd-detect`."""
    command.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    run()
