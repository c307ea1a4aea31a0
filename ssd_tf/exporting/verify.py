"""Whether exported files give what the net gives, and how fast.

The same images go through the Keras net and through every file, each in a
fresh process with its own runtime; detections are paired and compared.
"""

import collections
import importlib.util
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ssd_tf import command, files, preprocessing, serving
from ssd_tf.config import DetectionParams
from ssd_tf.exporting import formats, pairs, runner
from ssd_tf.exporting.runner import Found
from ssd_tf.nets.ssd import SSDNet

VERIFY_FILE = "verify.json"


class Tolerance(NamedTuple):
    """What a format may lose."""

    score: float  # largest difference of a pair's scores
    box: float  # largest difference of a pair's coordinates, shares
    overlap: float  # IoU from which two detections are a pair
    matched: float  # smallest share of detections with a partner
    metric: float  # largest loss of mAP


# float32 differs by the order of sums; now and then two boxes change places
# at the threshold of suppression.
_EXACT = Tolerance(1e-4, 1e-4, 0.9, 0.995, 0.001)
TOLERANCES = {
    "saved_model": _EXACT,
    "onnx": _EXACT,
    "openvino": _EXACT._replace(score=1e-3, box=1e-3),
    "tflite": _EXACT,
    "tflite_float16": Tolerance(0.02, 0.02, 0.8, 0.98, 0.005),
    # Quantised: single detections may move, the mean must not.
    "tflite_dynamic": Tolerance(0.5, 0.5, 0.5, 0.8, 0.02),
    "tflite_int8": Tolerance(0.5, 0.5, 0.5, 0.5, 0.02),
}


class Subject(NamedTuple):
    """A file that is verified."""

    name: str  # one of TOLERANCES
    runtime: str  # one of runner.RUNTIMES
    path: pathlib.Path


def subjects(export_dir: pathlib.Path) -> list[Subject]:
    """What an export has left in its folder, the newest version of each."""
    found = []
    saved_model = serving.find_saved_model(export_dir)
    if saved_model:
        found.append(Subject("saved_model", "TensorFlow", saved_model))
    for name in formats.TFLITE:
        path = formats.file_of(export_dir, name)
        if path.is_file():
            found.append(Subject(name, "LiteRT", path))
    onnx = formats.file_of(export_dir, formats.ONNX)
    if onnx.is_file():
        found.append(Subject("onnx", "ONNX Runtime", onnx))
        if importlib.util.find_spec("openvino"):
            found.append(Subject("openvino", "OpenVINO", onnx))
    return found


def verify(
    net: SSDNet,
    options: DetectionParams,
    wanted: Sequence[Subject],
    encoded: Sequence[bytes],
    measure: Callable[[Found], float] | None = None,
    batch_size: int = 1,
) -> list[dict[str, Any]]:
    """Runs all files on some images.

    Args:
      net: that they were exported from.
      options: of the detections that they answer with.
      wanted: the files.
      encoded: the images.
      measure: from all detections to mAP, where the truth is known.
      batch_size: images at once.

    Returns:
      An entry per file, the net itself first: `name`, `runtime`, `path`,
      `megabytes`, `median_ms`, `p95_ms`, `mAP` (None without `measure`); for
      files also `score`, `box` (largest differences), `matched`, `loss` of
      mAP, and `failures`: what is beyond tolerance, in words.
    """
    pixels = np.stack([_prepare(image, net) for image in encoded])
    with tempfile.TemporaryDirectory() as folder:
        images = pathlib.Path(folder) / "images.npz"
        runner.save_images(images, pixels, encoded)
        reference = _run_net(net, options, pixels, batch_size)
        expected = measure(reference) if measure else None
        entries = [_timed("keras", "TensorFlow", None, reference, expected)]
        references = collections.defaultdict(lambda: reference)
        if any(subject.runtime == "LiteRT" for subject in wanted):
            # Its op has no limit of candidates.
            limits = vars(options) | {"top_k": len(net.flat_anchors)}
            references["LiteRT"] = _run_net(
                net, DetectionParams(**limits), pixels, batch_size
            )
        with command.progress("verifying", len(wanted), "files") as advance:
            for subject in wanted:
                found = _run_file(subject, images, batch_size)
                entries.append(
                    _judge(
                        subject,
                        found,
                        references[subject.runtime],
                        expected,
                        measure,
                    )
                )
                advance()
    return entries


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
    """Detections, or why there are none."""
    _, runtime, path = subject
    try:
        return runner.run_in_process(runtime, path, images, batch_size)
    except runner.RunError as error:
        return str(error)


def _judge(subject, found, reference, expected, measure):
    name, runtime, path = subject
    if isinstance(found, str):
        entry = {"name": name, "runtime": runtime, "path": str(path)}
        return entry | {"failures": [found]}
    metric = measure(found) if measure else None
    entry = _timed(name, runtime, path, found, metric)
    entry |= pairs.compare(reference, found, TOLERANCES[name].overlap)._asdict()
    entry["loss"] = None if metric is None else expected - metric
    return entry | {"failures": failures(entry, TOLERANCES[name])}


def failures(entry: Mapping[str, Any], tolerance: Tolerance) -> list[str]:
    """What of an entry is beyond tolerance, in words."""
    limits = {
        "score": ("scores differ by", tolerance.score),
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
            f"{entry['matched']:.1%} of the detections are paired "
            f"(expected {tolerance.matched:.1%})"
        )
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
        "score": "{:.1e}",
        "box": "{:.1e}",
        "matched": "{:.1%}",
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
            "FAILED" if entry.get("failures") else "ok",
        )
        for entry in entries
    ]
    titles = ("format", "runtime", "MB", "median ms", "p95 ms", "score diff.")
    titles += ("box diff.", "paired", "mAP", "mAP loss", "")
    images = "an image" if batch_size == 1 else f"{batch_size} images"
    command.print_table(f"times of {images}", titles, rows)


def write(export_dir: pathlib.Path, entries: Sequence[Mapping]) -> None:
    """Writes verify.json beside what it is about."""
    files.write_json(export_dir / VERIFY_FILE, {"models": list(entries)})
