"""A detector of known answers, pictures and videos for the tests of detect."""

import functools
import pathlib
import re
import struct

import numpy as np
import pytest

from ssd_tf.detect import inputs, reading
from ssd_tf.detect import run as detect_run
from ssd_tf.detect.detectors import PIXELS, Detector
from ssd_tf.detect.outputs import Outputs
from ssd_tf.detect.reading import Picture, Reader, Result
from ssd_tf.detect.results import Detections

NAMES = ("cat", "a/b: dog")


def picture(height=40, width=60, source_id="a", pixels=None, **options):
    """A picture of noise, or of pixels."""
    if pixels is None:
        rng = np.random.default_rng(height)
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    names = f"in/{source_id}.jpg", f"{source_id}.jpg", source_id
    encoded = options.pop("encoded", None)
    return Picture(*names, pixels, encoded, None, **options)


def result(*rows, **options):
    """A picture with detections (box, score, class)."""
    table = [[*box, score, label] for box, score, label in rows]
    table = np.array(table, np.float64).reshape(-1, 6)
    seen = picture(**options)
    found = Detections(
        table[:, :4],
        table[:, 4],
        table[:, 5].astype(int),
        NAMES,
        seen.pixels.shape[:2],
        seen.pixels,
    )
    return Result(seen, found)


BOX, SMALL = (0.25, 0.1, 0.75, 0.5), (0.1, 0.2, 0.9, 0.3)
RESULTS = [
    result((BOX, 0.9, 2), (SMALL, 0.6, 1), ((0, 0, 1, 1), 0.1, 1)),
    result(height=30, source_id="7"),
    result((SMALL, 0.75, 3), height=50, source_id='größe, "x"'),
]


class ByMean(Detector):
    """A detector that takes the mean of each picture."""

    def prepare(self, pixels, encoded):
        return pixels.mean()


def by_brightness(log=None):
    """A detector that answers with the mean of each picture, as a score.

    Args:
      log: list that gets the sizes of batches.
    """

    def predict(batch):
        means = batch["image"]
        if log is not None:
            log.append(len(means))
        count = len(means)
        return {
            "detection_boxes": np.tile(
                [[[0.25, 0.25, 0.75, 0.5]]], [count, 1, 1]
            ),
            "detection_scores": np.array(means)[:, None] / 255,
            "detection_classes": np.ones((count, 1), int),
            "num_detections": np.ones(count, int),
        }

    return ByMean(predict, PIXELS, {}, NAMES)


def run(model, values, output_dir, batch_size=4, split=None, **options):
    """`detect_run.run` with names of inputs, and what it says."""
    naming = inputs.Naming()
    sources = inputs.find([*map(str, values)], split, naming)
    fields = {key: options.pop(key) for key in Reader._fields if key in options}
    reader = Reader(model.prepare, naming, **fields)
    outputs = Outputs(
        pathlib.Path(output_dir), model.class_names or (), **options
    )
    return detect_run.run(model, sources, reader, outputs, batch_size)


def read_all(values, **fields):
    """Pictures and what is unreadable, in their order, read without threads."""
    naming = inputs.Naming()
    sources = inputs.find([*map(str, values)], None, naming)
    reader = Reader(lambda pixels, encoded: None, naming, **fields)
    return [job() for job in reading.read(sources, reader)]


def write_video(path, frames, fps=10.0, codec="FFV1"):
    """Writes RGB frames; FFV1 keeps every bit of even sizes."""
    cv2 = pytest.importorskip("cv2")
    height, width = frames[0].shape[:2]
    code = cv2.VideoWriter_fourcc(*codec)
    writer = cv2.VideoWriter(str(path), code, fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()


def retimed(path, milliseconds):
    """Gives the pictures of an .mkv file of MJPG other times.

    Args:
      path: of half a second at most; behind it a new cluster begins.
      milliseconds: of each picture, below 2**15.
    """
    times = iter(milliseconds)

    def with_time(block):
        return b"\x81" + struct.pack(">h", next(times)) + block[1]

    # SimpleBlocks of track 1: time, flags, a JPEG.
    data, number = re.subn(
        rb"\x81..(.\xff\xd8)", with_time, path.read_bytes(), flags=re.S
    )
    assert number == len(milliseconds)
    # The duration, a float of 8 bytes.
    data, number = re.subn(
        rb"\x44\x89\x88.{8}",
        b"\x44\x89\x88" + struct.pack(">d", milliseconds[-1] + 33),
        data,
        flags=re.S,
    )
    assert number == 1
    path.write_bytes(data)


def read_video(path):
    """RGB frames and the frame rate."""
    cv2 = pytest.importorskip("cv2")
    capture = cv2.VideoCapture(str(path))
    assert capture.isOpened()
    frames = [
        frame[..., ::-1]
        for is_there, frame in iter(capture.read, (False, None))
        if is_there
    ]
    return frames, capture.get(cv2.CAP_PROP_FPS)


@functools.cache
def ramp(number, height=48, width=64):
    """So many grey frames, each brighter than the one before."""
    shades = np.linspace(20, 230, number).round().astype(np.uint8)
    return [np.full((height, width, 3), shade) for shade in shades]
