"""Draws detections on pictures.

  python -m ssd_tf.detect --model=TRAIN_DIR_OR_EXPORT --input=IMAGE_OR_FOLDER \\
      --output_dir=found

writes every picture with boxes, class names and scores into found/, and
found/detections.json: per image its size and its detections (class number,
name, score, box as ymin, xmin, ymax, xmax in [0, 1]).
"""

import io
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags
from PIL import Image

from ssd_tf import command, config_flags, drawing, files
from ssd_tf.command import UserError
from ssd_tf.config import DetectionParams
from ssd_tf.datasets import images

if TYPE_CHECKING:
    from ssd_tf.serving import Predict

DETECTIONS_FILE = "detections.json"

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "model",
    None,
    "A train_dir, a checkpoint in one, or an exported model.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "input", None, "An image, or a folder of images.", flag_values=FLAGS
)
flags.DEFINE_string(
    "output_dir", None, "Where pictures and JSON go.", flag_values=FLAGS
)
flags.DEFINE_float(
    "min_score", 0.5, "Smallest score that is drawn.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "batch_size", 8, "Images at once.", lower_bound=1, flag_values=FLAGS
)
config_flags.define(FLAGS, DetectionParams())


def list_images(path: str | os.PathLike) -> list[pathlib.Path]:
    """The images that a path means, sorted; folders are not searched deeper.

    Raises:
      UserError: there is none.
    """
    path = pathlib.Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"--input={path}: no such file or folder")
    found = sorted(
        entry
        for entry in path.iterdir()
        if entry.suffix.lower() in images.SUFFIXES
    )
    if not found:
        raise UserError(
            f"--input={path}: no image in it "
            f"({', '.join(sorted(images.SUFFIXES))})"
        )
    return found


def read_image(path: pathlib.Path) -> tuple[bytes, np.ndarray]:
    """An image as the model reads it and as a person sees it.

    Prepared as at the conversion, since TensorFlow ignores the EXIF
    orientation and misreads palettes.

    Returns:
      Encoded JPEG or PNG and uint8 `[h, w, 3]`.

    Raises:
      UnreadableImageError: not an image, or not a whole one.
      OSError: the file cannot be read.
    """
    encoded = images.prepare(path.read_bytes()).encoded
    with Image.open(io.BytesIO(encoded)) as image:
        return encoded, np.asarray(image.convert("RGB"))


def _batches(
    paths: Sequence[pathlib.Path], batch_size: int, unreadable: list[str]
) -> Iterator[list[tuple[pathlib.Path, bytes, np.ndarray]]]:
    """Batches of (path, encoded, pixels); what cannot be read is noted."""
    batch = []
    for path in paths:
        try:
            batch.append((path, *read_image(path)))
        except (OSError, images.UnreadableImageError) as error:
            unreadable.append(f"{path}: {error}")
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def detections_of(
    found: dict[str, np.ndarray], index: int, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """One image's detections for JSON, best first."""
    boxes, scores, classes = (
        found[f"detection_{name}"][index]
        for name in ("boxes", "scores", "classes")
    )
    return [
        {
            "class": int(classes[k]),
            "name": class_names[int(classes[k]) - 1],
            "score": round(float(scores[k]), 6),
            "box": [round(float(x), 6) for x in boxes[k]],
        }
        for k in range(int(found["num_detections"][index]))
    ]


def draw(
    pixels: np.ndarray,
    found: dict[str, np.ndarray],
    index: int,
    class_names: Sequence[str],
    min_score: float = 0.5,
) -> Image.Image:
    """One image of a batch with its detections drawn on it."""
    return drawing.draw_detections(
        pixels,
        found["detection_boxes"][index],
        found["detection_scores"][index],
        found["detection_classes"][index],
        class_names,
        min_score,
    )


def detect_images(
    predict: "Predict",
    class_names: Sequence[str],
    paths: Sequence[pathlib.Path],
    output_dir: str | os.PathLike,
    min_score: float = 0.5,
    batch_size: int = 8,
) -> tuple[int, list[str]]:
    """Draws the detections of images and writes them as JSON.

    Args:
      predict, class_names: from `serving.load_predictor`.
      paths: of the images.
      output_dir: for a picture per image and `detections.json`.
      min_score: smallest score that is drawn; the JSON has all.
      batch_size: images at once.

    Returns:
      Number of detections drawn, and a line per image that was not readable.
    """
    output_dir = pathlib.Path(output_dir)
    entries, unreadable, drawn = [], [], 0
    with command.progress("detecting", len(paths)) as advance:
        for batch in _batches(paths, batch_size, unreadable):
            found = predict([encoded for _, encoded, _ in batch])
            for index, (path, _, pixels) in enumerate(batch):
                height, width = pixels.shape[:2]
                detections = detections_of(found, index, class_names)
                drawn += sum(d["score"] >= min_score for d in detections)
                entries.append(
                    {
                        "file": str(path),
                        "height": height,
                        "width": width,
                        "detections": detections,
                    }
                )
                picture = draw(pixels, found, index, class_names, min_score)
                _save_picture(picture, output_dir / path.name)
            advance(len(batch))
    result = {"class_names": list(class_names), "images": entries}
    files.write_json(output_dir / DETECTIONS_FILE, result)
    return drawn, unreadable


def _save_picture(picture: Image.Image, path: pathlib.Path) -> None:
    """As JPEG or PNG, under the image's name; `a.gif` becomes `a.gif.png`."""
    suffix = path.suffix.lower()
    if suffix not in (".jpg", ".jpeg", ".png"):
        path = path.with_name(f"{path.name}.png")
    kind = "JPEG" if suffix in (".jpg", ".jpeg") else "PNG"
    with files.replace_file(path) as temporary:
        picture.save(temporary, kind, quality=92)


def main() -> None:
    """Reads the flags and detects."""
    command.require(FLAGS, "model", "input", "output_dir")
    paths = list_images(FLAGS.input)
    output_dir = pathlib.Path(FLAGS.output_dir).resolve()
    if any(path.resolve().parent == output_dir for path in paths):
        raise UserError(
            f"--output_dir={FLAGS.output_dir}: holds the images themselves, "
            "which would be drawn over; choose another folder"
        )
    command.load_tensorflow()
    from ssd_tf import serving

    given = config_flags.given(FLAGS, DetectionParams())
    if given and serving.find_saved_model(FLAGS.model):
        raise UserError(
            f"--{given[0]}: an exported model has its own; give it to "
            "ssd_tf.export, or name a train_dir"
        )
    predict, class_names = serving.load_predictor(
        FLAGS.model, config_flags.read(FLAGS, DetectionParams())
    )
    drawn, unreadable = detect_images(
        predict,
        class_names,
        paths,
        FLAGS.output_dir,
        FLAGS.min_score,
        FLAGS.batch_size,
    )
    for line in unreadable:
        command.say(f"not readable: {line}")
    if len(unreadable) == len(paths):
        raise UserError(f"--input={FLAGS.input}: no readable image in it")
    command.say(
        f"{drawn} objects with score >= {FLAGS.min_score} on "
        f"{len(paths) - len(unreadable)} images "
        f"({len(unreadable)} not readable) in {FLAGS.output_dir}"
    )


def run() -> None:
    """The command `ssd-detect`."""
    command.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    run()
