"""Detects in images, videos, cameras and TFRecords.

  python -m ssd_tf.detect --model=TRAIN_DIR --input=photos --output_dir=found
  python -m ssd_tf.detect --model=models/ssd/model.onnx \\
      --input="photos/**/*.jpg,clip.mp4,webcam" --output_dir=found \\
      --formats=json,csv,coco,voc --save_crops

writes every picture and video with boxes, class names and scores into found/,
and found/detections_by_image.json: per image its size and its detections
(class number, name, score, box as ymin, xmin, ymax, xmax in [0, 1]), per frame
of a video also its number and time. Ctrl-C ends a video or camera; what was
detected until then is written.
"""

import dataclasses
import functools
import pathlib

from PIL import Image

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.command.settings import fields, require, setting
from ssd_tf.command.signals import stop_requests
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.detect import detectors, formats, image_files, inputs, video
from ssd_tf.detect import run as detect_run
from ssd_tf.detect.outputs import Outputs
from ssd_tf.detect.reading import Reader

_model = functools.partial(setting, section="model")
_input = functools.partial(setting, section="input")
_output = functools.partial(setting, section="output")


@dataclasses.dataclass(frozen=True)
class OutputOptions:
    """The outputs of a detector on pictures."""

    output_dir: str | None = _output(None, "Folder for all results.")
    formats: tuple[str, ...] = _output(
        ("json",),
        "Files of detections: json (one entry per image), csv (one row per "
        "detection, in pixels), coco (results and list of images), voc (a "
        "tree to correct by hand), text (printed, one line per image).",
        choices=tuple(formats.FORMATS),
        expected=f"some of {', '.join(formats.FORMATS)}, separated by commas",
    )
    save_pictures: bool = _output(True, "Draw pictures and videos.")
    save_crops: bool = _output(
        False, "Cut out each detection: crops/CLASS/IMAGE_1.jpg ..."
    )
    min_score: float = _output(
        0.5,
        "Lowest score in pictures, crops, csv and voc; json and coco have all "
        "detections, from --select_threshold on.",
        low=0,
        high=1,
    )


@dataclasses.dataclass(frozen=True)
class DetectOptions:
    """Everything that the command takes."""

    model: str | None = _model(
        None,
        "A train_dir, a checkpoint in it, an exported model, a .tflite or "
        ".onnx file, or a file of detections.",
    )
    labels: str | None = _model(
        None,
        "Class names of a file, one per line, class 1 first [those inside it, "
        "else labels.txt beside it, else class numbers].",
    )
    batch_size: int = _model(
        8, "Images per batch; three batches are in memory.", low=1
    )
    input: str | None = _input(
        None,
        "Images, videos, TFRecord files, folders of them, patterns "
        '("a/**/*.jpg"), webcam or webcam:1, separated by commas.',
    )
    dataset_split_name: str | None = _input(
        None, "Split of the TFRecords in folders of --input."
    )
    max_frames: int | None = _input(
        None,
        "Largest number of frames of each video or camera [all, until Ctrl-C].",
        low=1,
    )
    max_image_megapixels: int = _input(
        image_files.MAX_MEGAPIXELS,
        "Larger images and videos are not read.",
        low=1,
    )
    outputs: OutputOptions = OutputOptions()
    detection: DetectionParams = DetectionParams()
    given: frozenset[str] = frozenset()  # names that were not left out


def _load(options: DetectOptions) -> detectors.Detector:
    """Loads the detector, with its class names."""
    given = [
        field.flag
        for field in fields(DetectionParams)
        if field.flag in options.given
    ]
    if given and not detectors.has_options(options.model):
        raise UserError(
            f"--{given[0]}: an exported model has its own; give it to "
            "ssd_tf.export, or name a train_dir"
        )
    names = None
    if options.labels:
        if not detectors.is_file(options.model):
            raise UserError(
                f"--labels={options.labels}: only for .tflite and .onnx files; "
                f"{options.model} has its own"
            )
        names = inputs.read_labels(options.labels)
    return detectors.load_detector(options.model, options.detection, names)


def _report(summary, options, stopped_by):
    """Prints a summary.

    Raises:
      UserError: not everything was done, or nothing.
    """
    where = f"in {options.outputs.output_dir}"
    for file, reason in summary.unreadable:
        command.say(f"not readable: {file}: {reason}")
    if summary.ended_by:
        raise UserError(
            f"{summary.ended_by}; what was found until then is {where}"
        ) from summary.ended_by
    if stopped_by:
        raise UserError(
            f"stopped by {stopped_by} after {summary.pictures} images, "
            f"whose results are {where}"
        )
    if not summary.pictures:
        raise UserError(f"--input={options.input}: no readable image in it")
    command.say(
        f"{summary.objects} objects with score >= {options.outputs.min_score} "
        f"on {summary.pictures} images ({len(summary.unreadable)} not "
        f"readable) {where}"
    )


def main(options: DetectOptions) -> None:
    """Detects on all inputs and writes the requested outputs."""
    require(options, "model", "input")
    wanted = options.outputs
    require(wanted, "output_dir")
    # Find the inputs, and refuse an output folder that mixes with them.
    naming = inputs.Naming()
    parts = inputs.split_list(options.input)
    sources = inputs.find(parts, options.dataset_split_name, naming)
    inputs.check_output_dir(wanted.output_dir, sources)
    crops = [inputs.CROPS_DIR] * wanted.save_crops
    voc = [inputs.VOC_DIR] * ("voc" in wanted.formats)
    inputs.check_unused(wanted.output_dir, [*crops, *voc])
    if any(isinstance(each, inputs.Video) for each in sources):
        video.import_cv2()
    # Load the detector.
    command.load_tensorflow()
    detector = _load(options)
    max_pixels = options.max_image_megapixels * 10**6
    # Pillow's own limit only warns; headers are compared with ours.
    Image.MAX_IMAGE_PIXELS = None
    outputs = Outputs(
        pathlib.Path(wanted.output_dir),
        detector.class_names,
        wanted.min_score,
        wanted.formats,
        wanted.save_pictures,
        wanted.save_crops,
    )
    # Read, detect and write, batch by batch, until the end or Ctrl-C.
    with stop_requests() as stop:
        reader = Reader(
            detector.prepare,
            naming,
            min(max_pixels, detector.max_pixels or max_pixels),
            options.max_frames,
            lambda: stop.received is not None,
        )
        summary = detect_run.run(
            detector, sources, reader, outputs, options.batch_size
        )
    # Nothing but Ctrl-C ends a camera.
    is_endless = not any(source.path for source in sources)
    _report(summary, options, None if is_endless else stop.received)


def run() -> None:
    """Runs the command `ssd-detect`."""
    command.run(main, DetectOptions, __doc__)


if __name__ == "__main__":
    run()
