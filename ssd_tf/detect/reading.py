"""Reads files, records and videos as pictures that a detector can take.

An input that cannot be read becomes an `Unreadable` in its place and never
stops the rest. TensorFlow is imported for TFRecords only.
"""

import contextlib
import functools
import io
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from ssd_tf.command import UserError
from ssd_tf.command.names import safe, shown
from ssd_tf.datasets import images
from ssd_tf.datasets.catalog import Shard
from ssd_tf.detect import image_files
from ssd_tf.detect import video as detect_video
from ssd_tf.detect.inputs import Naming, Source, Still, Video
from ssd_tf.detect.results import Detections

# A file is damaged where so much is missing, as seconds and as share of what
# it states: sound is often a little longer than the pictures.
_MISSING_SECONDS, _MISSING_SHARE = 1.0, 0.05


class Moment(NamedTuple):
    """Position of a picture in its video."""

    video: Video
    fps: float
    index: int  # from 0
    seconds: float


class Picture(NamedTuple):
    """A picture to detect on."""

    file: str  # what it is called in results
    name: str  # of what is drawn, below the output folder
    source_id: str  # no other picture's, and a file name without suffix
    pixels: np.ndarray  # RGB, uint8 [h, w, 3]
    encoded: bytes | None  # the same as JPEG or PNG, where it was a file
    prepared: Any  # what the detector takes
    moment: Moment | None = None  # None: it is of no video


class Result(NamedTuple):
    """A picture with its detections."""

    picture: Picture
    found: Detections
    # A frame of a video with its detections drawn, RGB uint8 [h, w, 3].
    drawn: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.picture.pixels.shape[:2]


class Unreadable(NamedTuple):
    """An input, or a part of it, of which there is no picture."""

    file: str
    reason: str


class Reader(NamedTuple):
    """Settings of reading."""

    # From pixels and encoded image, see `Detector.prepare`.
    prepare: Callable[[np.ndarray, bytes | None], Any]
    naming: Naming
    max_pixels: int = image_files.MAX_MEGAPIXELS * 10**6
    max_frames: int | None = None  # of each video; None: all
    # Asked before each picture.
    is_stopped: Callable[[], bool] = lambda: False


# What a thread does for one picture.
Job = Callable[[], Picture | Unreadable]


def read_image(
    source: pathlib.Path | bytes,
    max_pixels: int = image_files.MAX_MEGAPIXELS * 10**6,
) -> tuple[bytes, np.ndarray]:
    """Reads an image as a detector and as a person see it.

    Prepared as at the conversion, since TensorFlow ignores the EXIF
    orientation and misreads palettes.

    Args:
      source, max_pixels: see `image_files.read`.

    Returns:
      Encoded JPEG or PNG and RGB uint8 `[h, w, 3]`.

    Raises:
      UnreadableImageError: not an image, not a whole one, or too large.
      OSError: the file cannot be read.
    """
    encoded = image_files.read(source, max_pixels).encoded
    with Image.open(io.BytesIO(encoded)) as image:
        return encoded, np.asarray(image.convert("RGB"))


def read_any(
    image: Any, prepare: Callable[..., Any], max_pixels: int | None = None
) -> Picture:
    """Reads whatever a user of `Detector` calls an image.

    Args:
      image: a path, bytes of an image file, a PIL image or an array
        `[H, W, 3]` uint8 (RGB).
      prepare: see `Detector.prepare`.
      max_pixels: larger images are refused [the default of `read_image`].

    Raises:
      UserError: it is missing, unreadable or of another type.
    """
    name, encoded = "", None
    if isinstance(image, str | os.PathLike | bytes):
        is_path = not isinstance(image, bytes)
        source = pathlib.Path(image) if is_path else image
        name = str(source) if is_path else "the bytes"
        limit = [max_pixels] * (max_pixels is not None)
        try:
            encoded, pixels = read_image(source, *limit)
        except OSError as error:
            raise UserError(f"{name}: {error.strerror or error}") from error
        except images.UnreadableImageError as error:
            raise UserError(f"{name}: not a readable image: {error}") from error
    elif isinstance(image, Image.Image):
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    else:
        pixels = _checked_array(image)
    stem = pathlib.PurePath(name).stem
    return Picture(name, name, stem, pixels, encoded, prepare(pixels, encoded))


def _checked_array(image):
    if not isinstance(image, np.ndarray):
        raise UserError(
            f"an image is a {type(image).__name__}; expected a path, bytes, a "
            "PIL image or a NumPy array"
        )
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        shape = "x".join(map(str, image.shape))
        raise UserError(
            f"an image is an array of shape {shape}; expected height x width "
            "x 3 (RGB); for grey or RGBA pass PIL.Image.fromarray(array)"
        )
    if image.dtype != np.uint8:
        raise UserError(
            f"an image is an array of {image.dtype}; expected uint8 with "
            "values from 0 to 255"
        )
    return image


def read(sources: Sequence[Source], reader: Reader) -> Iterator[Job]:
    """Yields a job for each picture of all sources, in their order.

    The jobs may be done in any thread and at any time.
    """
    for source in sources:
        if isinstance(source, Still):
            jobs = [functools.partial(_read_still, source, reader)]
        elif isinstance(source, Shard):
            jobs = _of_records(source, reader)
        else:
            jobs = _of_video(source, reader)
        for job in jobs:
            if reader.is_stopped():
                return
            yield job


def _read_still(still, reader):
    names = shown(still.path), still.name, still.source_id
    return _read_encoded(names, still.path, reader)


def _read_encoded(names, source, reader):
    try:
        encoded, pixels = read_image(source, reader.max_pixels)
    except OSError as error:
        return Unreadable(names[0], error.strerror or str(error))
    except images.UnreadableImageError as error:
        return Unreadable(names[0], str(error))
    return Picture(*names, pixels, encoded, reader.prepare(pixels, encoded))


def _of_records(shard: Shard, reader: Reader) -> Iterator[Job]:
    """Yields the images of a TFRecord file up to where it is damaged."""
    import tensorflow as tf

    from ssd_tf.datasets import records

    file = shown(shard.path)
    dataset = tf.data.TFRecordDataset(str(shard.path))
    parsed = iter(dataset.map(records.parse_example))
    for number in range(2**63):
        try:
            record = next(parsed)
        except StopIteration:
            return
        except tf.errors.InvalidArgumentError as error:
            reason = f"record {number}: {_first_line(error)}"
            yield functools.partial(Unreadable, file, reason)
        except tf.errors.OpError as error:
            reason = f"after {number} records: {_first_line(error)}"
            yield functools.partial(Unreadable, file, reason)
            return
        else:
            yield _of_record(record, file, reader)


def _first_line(error):
    return error.message.partition("\n")[0]


def _of_record(record, file, reader):
    stated = record["source_id"].numpy().decode("utf-8", "replace")
    image = record["image"].numpy()
    name = safe(stated)
    if not name.lower().endswith(tuple(images.SUFFIXES)):
        name += ".png" if image.startswith(b"\x89PNG") else ".jpg"
    names = (
        f"{file}:{stated}",
        reader.naming.picture(name),
        reader.naming.source_id(stated),
    )
    return functools.partial(_read_encoded, names, image, reader)


def _of_video(video: Video, reader: Reader) -> Iterator[Job]:
    try:
        with detect_video.opened(video.path, video.camera) as capture:
            image_files.check_size(
                *detect_video.size(capture), reader.max_pixels
            )
            yield from _of_frames(video, capture, reader)
    except (
        detect_video.UnreadableVideoError,
        images.UnreadableImageError,
    ) as error:
        yield functools.partial(Unreadable, video.file, str(error))


def _of_frames(video, capture, reader):
    fps, count, end = detect_video.frame_rate(capture), 0, 0.0
    stated = detect_video.stated_frames(capture)
    is_live = video.path is None
    for frame in detect_video.frames(capture, is_live):
        moment = Moment(video, fps, frame.index, frame.seconds)
        name = f"{video.source_id}_{frame.index:06d}"
        source_id = reader.naming.source_id(name)
        yield functools.partial(
            _read_frame, moment, source_id, frame.pixels, reader
        )
        count, end = count + 1, frame.seconds + 1 / fps
        if count == reader.max_frames:
            return
    if not count:
        reason = "no frame of it can be read"
        yield functools.partial(Unreadable, video.file, reason)
    elif stated and count < stated and _is_cut_off(end, stated / fps):
        reason = f"ends after {count} of the {stated} frames that it states"
        yield functools.partial(Unreadable, video.file, reason)


def _is_cut_off(seconds, stated_seconds):
    """Returns True if much of the stated length is missing.

    Frames alone do not tell: where a file has no count, OpenCV states seconds
    times the highest rate.
    """
    missing = stated_seconds - seconds
    return missing > max(_MISSING_SECONDS, _MISSING_SHARE * stated_seconds)


def _read_frame(moment, source_id, bgr, reader):
    pixels = detect_video.to_rgb(bgr)
    prepared = reader.prepare(pixels, None)
    names = moment.video.file, moment.video.name, source_id
    return Picture(*names, pixels, None, prepared, moment)


def count(
    sources: Iterable[Source], max_frames: int | None = None
) -> int | None:
    """Counts the pictures of all sources; None where a source does not say."""
    counts = [_count_one(source, max_frames) for source in sources]
    return None if None in counts else sum(counts)


def _count_one(source, max_frames):
    if isinstance(source, Still):
        return 1
    if isinstance(source, Shard):
        return source.images
    if source.path is None:
        return max_frames
    with contextlib.suppress(detect_video.UnreadableVideoError):
        with detect_video.opened(source.path) as capture:
            stated = detect_video.stated_frames(capture)
            return min(stated, max_frames) if stated and max_frames else stated
    return 1
