"""Writes pictures, crops and videos; each file appears when it is whole."""

import itertools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssd_tf.command.names import UniqueNames, safe
from ssd_tf.detect import image_files, video
from ssd_tf.detect.inputs import CROPS_DIR
from ssd_tf.detect.reading import Result
from ssd_tf.detect.results import class_name, pixel_slices

_CROP_QUALITY = 95  # of JPEGs


class Outputs(NamedTuple):
    """The outputs of a run."""

    output_dir: pathlib.Path
    class_names: Sequence[str]
    min_score: float = 0.5  # of drawn boxes and crops
    formats: Sequence[str] = ("json",)  # keys of `formats.FORMATS`
    pictures: bool = True
    crops: bool = False


def render(result: Result, outputs: Outputs) -> Result:
    """Writes crops and picture of a result, in any thread.

    Returns:
      The result; with the drawn picture if it is a video's.
    """
    if outputs.crops:
        save_crops(result, outputs)
    if not outputs.pictures:
        return result
    picture = result.found.plot(outputs.min_score)
    if result.picture.moment:
        return result._replace(drawn=np.asarray(picture))
    image_files.save(picture, outputs.output_dir / result.picture.name)
    return result


def save_crops(result: Result, outputs: Outputs) -> None:
    """Cuts out each detection: crops/CLASS/SOURCE_ID_1.jpg, the best first."""
    found = result.found.above(outputs.min_score)
    boxes = pixel_slices(found.boxes, *result.size)
    folders = class_folders(outputs.class_names)
    for number, (box, label) in enumerate(
        zip(boxes.tolist(), found.classes.tolist(), strict=True), start=1
    ):
        ymin, xmin, ymax, xmax = box
        crop = Image.fromarray(result.picture.pixels[ymin:ymax, xmin:xmax])
        name = f"{result.picture.source_id}_{number}.jpg"
        folder = outputs.output_dir / CROPS_DIR / class_name(folders, label)
        image_files.save(crop, folder / name, _CROP_QUALITY)


def class_folders(class_names: Sequence[str]) -> list[str]:
    """Returns distinct folder names, one per class."""
    names = UniqueNames()
    return [names.give(safe(name)) for name in class_names]


def write_videos(
    output_dir: pathlib.Path,
    results: Iterable[Result],
    failed: Callable[[str, str], None],
) -> None:
    """Writes the drawn frames of videos, one video after the other.

    Args:
      output_dir: the names of the videos are relative to it.
      results: of all pictures.
      failed: called with the file and the reason where a video cannot be
        written; the others are.
    """
    frames = (result for result in results if result.drawn is not None)
    by_video = itertools.groupby(frames, lambda result: result.picture.name)
    for name, results_of_video in by_video:
        first = next(results_of_video)
        try:
            _write_video(output_dir / name, first, results_of_video)
        except video.UnwritableVideoError as error:
            failed(first.picture.file, f"not drawn: {error}")


def _write_video(path, first, others):
    """Writes a video that plays at its recorded speed."""
    fps = video.writable_rate(first.picture.moment.fps)
    frames = (
        (result.picture.moment.seconds, result.drawn)
        for result in itertools.chain([first], others)
    )
    with video.writing(path, fps, *first.size) as write:
        for pixels in video.at_rate(frames, fps):
            write(pixels)
