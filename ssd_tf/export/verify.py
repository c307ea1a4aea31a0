"""Compares exported files with the net, in results and in speed.

The same images go through the Keras net and through every file, each in a
fresh process with its own runtime; detections are paired and compared.
"""

import dataclasses
import functools
import math
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ssd_tf import command
from ssd_tf.command import files
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.export import runner
from ssd_tf.export.formats import ExportedFile
from ssd_tf.export.runner import Found
from ssd_tf.input_pipeline import preprocessing
from ssd_tf.multibox import boxes as geometry
from ssd_tf.nets.ssd import SSDNet

VERIFY_FILE = "verify.json"


class Tolerance(NamedTuple):
    """Largest accepted differences of a format."""

    score: float  # largest difference of a pair's scores
    box: float  # largest difference of a pair's coordinates, shares
    overlap: float  # IoU from which two detections are a pair
    matched: float  # smallest share of detections with a partner
    metric: float  # largest loss of mAP
    mean_score: float  # largest mean difference of the scores of pairs


# float32 differs by the order of sums; now and then two boxes change places
# at the threshold of suppression.
_EXACT = Tolerance(1e-4, 1e-4, 0.9, 0.995, 0.001, 1e-4)
TOLERANCES = {
    "saved_model": _EXACT,
    "onnx": _EXACT,
    "openvino": _EXACT._replace(score=1e-3, box=1e-3, mean_score=1e-3),
    "tflite": _EXACT,
    # Rounded: of two boxes on an object the other one may be kept, with a
    # score and a place of its own, so that a single pair says nothing. Whether
    # the model is the same say the mean, the share of pairs and the mAP.
    "tflite_float16": Tolerance(math.inf, math.inf, 0.8, 0.98, 0.005, 0.005),
    "tflite_dynamic": Tolerance(math.inf, math.inf, 0.5, 0.9, 0.02, 0.02),
    "tflite_int8": Tolerance(math.inf, math.inf, 0.5, 0.8, 0.02, 0.05),
}


def verify(
    net: SSDNet,
    wanted: Sequence[ExportedFile],
    encoded: Sequence[bytes],
    measure: Callable[[Found], float] | None = None,
    batch_size: int = 1,
) -> list[dict[str, Any]]:
    """Runs all files on some images.

    Args:
      net: that they were exported from.
      wanted: the files, at least one.
      encoded: the images, which can be decoded.
      measure: from all detections to mAP, where the truth is known.
      batch_size: images at once.

    Returns:
      An entry per file, before them one of the net itself with the options of
      the first: `name`, `runtime`, `path`, `megabytes`, `median_ms`, `p95_ms`,
      `mAP` (None without `measure`); for files also `score`, `box` (largest
      differences), `mean_score`, `matched` (None where nothing is compared),
      `compared`, `loss` of mAP, and `failures`: what is beyond tolerance, in
      words. A figure that is no number is None.
    """
    pixels = np.stack([_prepare(image, net) for image in encoded])

    @functools.cache
    def reference(options: DetectionParams):
        found = _run_net(net, options, pixels, batch_size)
        return found, measure(found) if measure else None

    with tempfile.TemporaryDirectory() as folder:
        images = pathlib.Path(folder) / "images.npz"
        runner.save_images(images, pixels, encoded)
        entries = [
            _timed("keras", "TensorFlow", None, *reference(wanted[0].options))
        ]
        with command.progress("verifying", len(wanted), "files") as advance:
            for subject in wanted:
                found = _run_file(subject, images, batch_size)
                expected = reference(_options(subject, net))
                entries.append(_judge(subject, found, expected, measure))
                advance()
    return entries


def _options(subject, net):
    """Returns those of the net that a file's detections are compared with."""
    if subject.runtime != runner.LITERT:
        return subject.options
    # Its op has no limit of candidates.
    anchors = len(net.flat_anchors)
    return dataclasses.replace(subject.options, top_k=anchors)


def _prepare(image, net):
    size = net.params.img_shape
    return preprocessing.resize(preprocessing.decode(image), size).numpy()


def _run_net(net, options, pixels, batch_size) -> Found:
    @tf.function
    def detect(images):
        whitened = preprocessing.whiten(images, net.params)
        return net.detect(whitened, options)._asdict()

    def run(images, _):
        found = detect(tf.constant(images))
        return {name: value.numpy() for name, value in found.items()}

    return runner.run_all(run, pixels, pixels, batch_size)


def _timed(name, runtime, path, found, metric) -> dict[str, Any]:
    return {
        "name": name,
        "runtime": runtime,
        "path": str(path) if path else None,
        "megabytes": _size(path) / 1e6 if path else None,
        "median_ms": 1e3 * float(np.median(found["seconds"])),
        "p95_ms": 1e3 * float(np.percentile(found["seconds"], 95)),
        "mAP": metric,
    }


def _size(path):
    inside = path.rglob("*") if path.is_dir() else [path]
    return sum(each.stat().st_size for each in inside if each.is_file())


def _run_file(subject, images, batch_size) -> Found | str:
    """Returns detections, or why there are none."""
    runtime, path = subject.runtime, subject.path
    try:
        return runner.run_in_process(runtime, path, images, batch_size)
    except runner.RunError as error:
        return str(error)


def _judge(subject, found, expected, measure):
    """Returns the entry of a file by its detections, or by why there are
    none.
    """
    name, runtime, path, options = subject
    if isinstance(found, str):
        entry = {"name": name, "runtime": runtime, "path": str(path)}
        return entry | {"failures": [found]}
    reference, expected_metric = expected
    tolerance = TOLERANCES[name]
    least = least_score(reference, options.select_threshold, tolerance.score)
    metric = measure(found) if measure else None
    entry = _timed(name, runtime, path, found, metric)
    alike = compare(reference, found, tolerance.overlap, least)
    entry |= alike._asdict()
    entry["loss"] = None if metric is None else expected_metric - metric
    entry["failures"] = failures(entry, tolerance)
    if not alike.compared:
        # Neither alike nor different.
        entry |= dict.fromkeys(("score", "mean_score", "box", "matched"))
    return {key: _number(value) for key, value in entry.items()}


def _number(value):
    """Returns JSON has no word for what is no number."""
    is_none = isinstance(value, float) and not math.isfinite(value)
    return None if is_none else value


def failures(entry: Mapping[str, Any], tolerance: Tolerance) -> list[str]:
    """Describes the figures of an entry that are beyond tolerance.

    Where nothing was found nothing could be compared. Annotated images are
    those of a model's user, on which that is a failure.
    """
    limits = {
        "score": ("scores differ by", tolerance.score),
        "mean_score": ("scores differ on average by", tolerance.mean_score),
        "box": ("boxes differ by", tolerance.box),
        "loss": ("mAP is lower by", tolerance.metric),
    }
    # Not `>`: NaN is beyond every limit.
    found = [
        f"{words} {entry[name]:.2g} (allowed {limit:g})"
        for name, (words, limit) in limits.items()
        if entry[name] is not None and not entry[name] <= limit
    ]
    if not entry["matched"] >= tolerance.matched:
        found.append(
            f"{entry['matched']:.1%} of {entry['compared']} detections are "
            f"paired (expected {tolerance.matched:.1%})"
        )
    if not entry["compared"] and entry["loss"] is not None:
        found.append("nothing is detected, so nothing was compared")
    return found


def print_table(
    entries: Sequence[Mapping[str, Any]], batch_size: int = 1
) -> None:
    """Prints a row per file.

    Args:
      entries: of `verify`.
      batch_size: of the times.
    """
    columns = {
        "megabytes": "{:.1f}",
        "median_ms": "{:.1f}",
        "p95_ms": "{:.1f}",
        "compared": "{}",
        "matched": "{:.1%}",
        "score": "{:.1e}",
        "mean_score": "{:.1e}",
        "box": "{:.1e}",
        "mAP": "{:.4f}",
        "loss": "{:+.4f}",
    }
    rows = [
        (
            entry["name"],
            entry["runtime"],
            *(
                "-" if entry.get(key) is None else form.format(entry[key])
                for key, form in columns.items()
            ),
            _verdict(entry),
        )
        for entry in entries
    ]
    titles = ("format", "runtime", "MB", "median ms", "p95 ms", "compared")
    titles += ("paired", "score diff.", "mean", "box diff.", "mAP", "mAP loss")
    titles += ("",)
    images = "an image" if batch_size == 1 else f"{batch_size} images"
    command.print_table(f"times of {images}", titles, rows)


def notes(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describes what the figures of `verify` do not tell."""
    found = []
    if any(entry.get("compared") == 0 for entry in entries):
        found.append(
            "NOT COMPARED: nothing is detected on these images; name images "
            "with objects by --verify"
        )
    quantised = {"tflite_dynamic", "tflite_int8"}
    if entries[0]["mAP"] is None and quantised & {x["name"] for x in entries}:
        found.append(
            "what quantising costs in mAP was not measured; name annotated "
            "images by --verify"
        )
    return found


def _verdict(entry):
    if entry.get("failures"):
        return "FAILED"
    return "NOT COMPARED" if entry.get("compared") == 0 else "ok"


def write(export_dir: pathlib.Path, entries: Sequence[Mapping]) -> None:
    """Writes verify.json beside what it is about."""
    files.write_json(export_dir / VERIFY_FILE, {"models": list(entries)})


# Detections whose score is less than so much above the threshold need no
# partner: one at the threshold may fall on either side.
MARGIN = 0.04
# Unless fewer of the expected ones are above it.
_ENOUGH = 20
# Boxes as close as this, in shares of the image, are the same box also where
# the image's border has left them no area.
_SAME = 1e-3


class Alike(NamedTuple):
    """Figures of a comparison."""

    score: float  # largest difference of the scores of a pair
    box: float  # largest difference of the coordinates of a pair
    matched: float  # share of the detections that have a partner
    mean_score: float  # mean difference of the scores of a pair
    compared: int  # detections, of both sides


class _Image(NamedTuple):
    boxes: np.ndarray  # [n, 4]
    scores: np.ndarray  # [n]
    classes: np.ndarray  # [n]


def least_score(
    expected: Mapping[str, np.ndarray], threshold: float, margin: float
) -> float:
    """Returns the lowest score of the detections that are compared.

    Args:
      expected: detections, padded batches.
      threshold: smallest score that was asked for.
      margin: what a score may be off without being wrong. Nearer to the
        threshold nothing is compared, however few there are.

    Returns:
      0.05 with a threshold of 0.01; less where a net has found little.
    """
    usual = threshold + MARGIN
    scores = np.sort(expected["detection_scores"], axis=None)[::-1]
    enough = scores[_ENOUGH - 1] if len(scores) >= _ENOUGH else 0.0
    return float(min(usual, max(enough, threshold + min(margin, MARGIN))))


def compare(
    expected: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
    overlap: float,
    least: float = 0.05,
) -> Alike:
    """Pairs the detections of images, each with its best partner.

    Args:
      expected, found: detections of the same images, padded batches.
      overlap: IoU from which two of one class are a pair.
      least: score from which on a detection needs a partner.
    """
    sides = []
    for index in range(len(expected["num_detections"])):
        one, other = _image(expected, index), _image(found, index)
        overlaps = _overlaps(one, other)
        sides.append(_pair(one, other, overlaps, overlap, least))
        sides.append(_pair(other, one, overlaps.T, overlap, least))
    scores, boxes, counted = zip(*sides, strict=True)
    scores, boxes = np.concatenate(scores), np.concatenate(boxes)
    compared = int(sum(counted))
    return Alike(
        float(scores.max(initial=0.0)),
        float(boxes.max(initial=0.0)),
        len(scores) / compared if compared else 1.0,
        float(scores.mean()) if len(scores) else 0.0,
        compared,
    )


def _image(found, index):
    count = int(found["num_detections"][index])
    names = ("boxes", "scores", "classes")
    return _Image(*(found[f"detection_{x}"][index][:count] for x in names))


def _overlaps(one, other):
    """Returns [n, m]; 0 for different classes."""
    distances = np.abs(one.boxes[:, None] - other.boxes).max(axis=-1)
    overlaps = np.maximum(
        geometry.iou_matrix(one.boxes, other.boxes), 1 - distances / _SAME
    )
    return np.where(one.classes[:, None] == other.classes, overlaps, 0.0)


def _pair(these, those, overlaps, overlap, least):
    """Differences of scores [p] and boxes [p, 4] of pairs, and how many of
    these need a partner."""
    real = these.scores >= least
    if not (real.any() and overlaps.shape[1]):
        return np.zeros(0), np.zeros((0, 4)), real.sum()
    paired = real & (overlaps.max(axis=1) >= overlap)
    partner = overlaps.argmax(axis=1)[paired]
    return (
        np.abs(these.scores[paired] - those.scores[partner]),
        np.abs(these.boxes[paired] - those.boxes[partner]),
        real.sum(),
    )
