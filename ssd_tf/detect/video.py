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
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from ssd_tf import command
from ssd_tf.command import UserError, files

if TYPE_CHECKING:
    import cv2

Pixels = TypeVar("Pixels")

# Of a camera or file that does not say.
DEFAULT_FPS = 25.0
_MAX_FPS = 1000.0
# MPEG-4 part 2: every build of OpenCV can write it, none needs a licence.
_CODEC = "mp4v"
# It divides a second into at most so many units. OpenCV states the rate with at
# most three decimals, and every one makes the units ten times as many.
_MAX_UNITS, _MAX_DECIMALS = 65_535, 3
# Some browsers state 1000 where they mean that times are milliseconds.
_MIN_DRAWN_FPS, _MAX_DRAWN_FPS = 0.01, 240.0
# A minute at 30 frames per second. Times of damaged files leap by hours.
_MAX_REPEATS = 1800


class UnreadableVideoError(Exception):
    """There is no camera, or the file is no video."""


class UnwritableVideoError(UserError):
    """A drawn video cannot be written."""


class VideoFrame(NamedTuple):
    """One picture of a video."""

    index: int  # from 0
    seconds: float  # since the first
    pixels: np.ndarray  # BGR, uint8 [h, w, 3]


def import_cv2() -> types.ModuleType:
    """Returns OpenCV, told to leave messages to us.

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
    """Returns the number of frames that a file states, or None."""
    count = capture.get(import_cv2().CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < 2**31 else None


def frame_rate(capture: "cv2.VideoCapture") -> float:
    """Frames per second, `DEFAULT_FPS` where nobody says."""
    fps = capture.get(import_cv2().CAP_PROP_FPS)
    return fps if math.isfinite(fps) and 0 < fps <= _MAX_FPS else DEFAULT_FPS


def size(capture: "cv2.VideoCapture") -> tuple[int, int]:
    """Returns height and width in pixels."""
    cv2 = import_cv2()
    names = cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH
    return tuple(int(capture.get(name)) for name in names)


def frames(
    capture: "cv2.VideoCapture", is_live: bool = False
) -> Iterator[VideoFrame]:
    """Yields the frames in their order.

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
    """Returns BGR, uint8 `[h, w, 3]`, to RGB and back."""
    cv2 = import_cv2()
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def writable_rate(fps: float) -> float:
    """Returns the frame rate nearest to this one that a drawn video can
    have.
    """
    fps = min(max(fps, _MIN_DRAWN_FPS), _MAX_DRAWN_FPS)
    decimals = int(math.log10(_MAX_UNITS / fps))
    return round(fps, min(decimals, _MAX_DECIMALS))


def at_rate(
    frames: Iterable[tuple[float, Pixels]], fps: float
) -> Iterator[Pixels]:
    """Frames at times of any kind as frames of a constant rate.

    Each is repeated until the next one is due, at most `_MAX_REPEATS` times,
    or left out where the next one is due at once. Those that come at that
    rate are not changed.

    Args:
      frames: pairs of seconds, which never fall, and what is seen then.
      fps: frames per second.
    """
    for (seconds, pixels), later in itertools.pairwise(
        itertools.chain(frames, [None])
    ):
        due = 1
        if later:
            due = round(later[0] * fps) - round(seconds * fps)
        yield from itertools.repeat(pixels, min(due, _MAX_REPEATS))


@contextlib.contextmanager
def writing(
    path: str | os.PathLike, fps: float, height: int, width: int
) -> Iterator[Callable[[np.ndarray], None]]:
    """Writes an .mp4 file, which appears as a whole or not at all.

    Args:
      path: of the file.
      fps: frames per second, a `writable_rate`.
      height, width: of the frames; of odd ones the last row or column is cut.

    Yields:
      A function of one frame, RGB uint8 [height, width, 3].

    Raises:
      UnwritableVideoError: it cannot be written; before the first frame where
        that is known.
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
            if not writer.isOpened():
                raise UnwritableVideoError(
                    f"{path}: OpenCV writes no video of {width} x {height} at "
                    f"{fps:g} frames per second; --nosave_pictures draws none"
                )
            yield write
            writer.release()
            _check_frames(video, count, path)
            os.replace(video, temporary)
        finally:
            writer.release()
            video.unlink(missing_ok=True)


def _check_frames(video: pathlib.Path, count: int, path) -> None:
    """Checks the written frames: OpenCV is silent about a full disk."""
    there = 0
    with contextlib.suppress(UnreadableVideoError), opened(video) as capture:
        there = stated_frames(capture) or 0
    if there != count:
        raise UnwritableVideoError(
            f"{path}: {there} of {count} frames could be written; is the disk "
            "full? --nosave_pictures writes no video"
        )
