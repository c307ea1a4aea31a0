"""Videos and cameras, read and written with OpenCV, in RGB.

OpenCV comes with the extra `video` and is imported where it is needed.
"""

import contextlib
import itertools
import math
import os
import pathlib
import time
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ssd_tf import command, files
from ssd_tf.command import UserError

if TYPE_CHECKING:
    import cv2

# Of a camera or file that does not say.
DEFAULT_FPS = 25.0
_MAX_FPS = 1000.0
# MPEG-4 part 2: every build of OpenCV can write it, none needs a licence.
_CODEC = "mp4v"


class UnreadableVideoError(Exception):
    """There is no camera, or the file is no video."""


class VideoFrame(NamedTuple):
    """One picture of a video."""

    index: int  # from 0
    seconds: float  # since the first
    pixels: np.ndarray  # BGR, uint8 [h, w, 3]


def import_cv2() -> types.ModuleType:
    """OpenCV, told to leave messages to us.

    Raises:
      UserError: it is not installed.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    return command.import_extra("cv2", "video")


@contextlib.contextmanager
def opened(
    path: str | os.PathLike | None, camera: int = 0
) -> Iterator["cv2.VideoCapture"]:
    """Opens a file or, without a path, a camera by its number.

    Raises:
      UnreadableVideoError: that is not possible.
    """
    capture = import_cv2().VideoCapture(str(path) if path else camera)
    try:
        if not capture.isOpened():
            what = "no video that OpenCV can read" if path else "no such camera"
            raise UnreadableVideoError(what)
        yield capture
    finally:
        capture.release()


def stated_frames(capture: "cv2.VideoCapture") -> int | None:
    """How many frames a file says it has; None where it does not."""
    count = capture.get(import_cv2().CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < 2**31 else None


def frame_rate(capture: "cv2.VideoCapture") -> float:
    """Frames per second, `DEFAULT_FPS` where nobody says."""
    fps = capture.get(import_cv2().CAP_PROP_FPS)
    return fps if math.isfinite(fps) and 0 < fps <= _MAX_FPS else DEFAULT_FPS


def size(capture: "cv2.VideoCapture") -> tuple[int, int]:
    """Height and width in pixels."""
    cv2 = import_cv2()
    names = cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH
    return tuple(int(capture.get(name)) for name in names)


def frames(
    capture: "cv2.VideoCapture", is_live: bool = False
) -> Iterator[VideoFrame]:
    """The frames in their order.

    Args:
      capture: opened, nothing read yet.
      is_live: times are the clock's, not the file's.
    """
    cv2, step = import_cv2(), 1 / frame_rate(capture)
    started, seconds = time.monotonic(), 0.0
    for index in itertools.count():
        is_there, pixels = capture.read()
        if not is_there:
            return
        stated = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if is_live:
            seconds = time.monotonic() - started if index else 0.0
        elif index:
            # Not every container has times.
            seconds = stated if stated > seconds else seconds + step
        yield VideoFrame(index, seconds, pixels)


def to_rgb(pixels: np.ndarray) -> np.ndarray:
    """BGR, uint8 `[h, w, 3]`, to RGB and back."""
    cv2 = import_cv2()
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


@contextlib.contextmanager
def writing(
    path: str | os.PathLike, fps: float, height: int, width: int
) -> Iterator[Callable[[np.ndarray], None]]:
    """Writes an .mp4 file, which appears as a whole or not at all.

    Args:
      path: of the file.
      fps: frames per second.
      height, width: of the frames; of odd ones the last row or column is cut.

    Yields:
      A function of one frame, RGB uint8 [height, width, 3].

    Raises:
      UserError: it cannot be written.
    """
    cv2, count = import_cv2(), 0
    with files.replace_file(path) as temporary:
        # OpenCV takes the container from the suffix.
        video = temporary.with_suffix(".tmp.mp4")
        codec = cv2.VideoWriter_fourcc(*_CODEC)
        writer = cv2.VideoWriter(str(video), codec, fps, (width, height))

        def write(pixels: np.ndarray) -> None:
            nonlocal count
            writer.write(to_rgb(pixels))
            count += 1

        try:
            yield write
            writer.release()
            _check_frames(video, count, path)
            os.replace(video, temporary)
        finally:
            writer.release()
            video.unlink(missing_ok=True)


def _check_frames(video: pathlib.Path, count: int, path) -> None:
    """OpenCV says nothing where a disk is full or a size impossible."""
    there = 0
    with contextlib.suppress(UnreadableVideoError), opened(video) as capture:
        there = stated_frames(capture) or 0
    if there != count:
        raise UserError(
            f"{path}: {there} of {count} frames could be written; is the disk "
            "full? --nosave_pictures writes no video"
        )
