"""Whether exported files give what the net gives, and how fast.

The same images go through the Keras net and through every file, each in a
fresh process with its own runtime; detections are paired and compared.
"""

import importlib.util
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ssd_tf import boxes as geometry
from ssd_tf import command, files, preprocessing, serving
from ssd_tf.config import DetectionParams
from ssd_tf.detection import Detections
from ssd_tf.exporting import formats, runner
from ssd_tf.exporting.runner import Found
from ssd_tf.nets.ssd import SSDNet

VERIFY_FILE = "verify.json"
# Lower scores need no partner: one at the threshold may fall on either side.
_MIN_SCORE = 0.05


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
    "tflite_dynamic": Tolerance(0.5, 0.5, 0.5, 0.9, 0.02),
    "tflite_int8": Tolerance(0.5, 0.5, 0.5, 0.8, 0.02),
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
) -> list[dict[str, Any]]:
    """Runs all files on some images.

    Args:
      net: that they were exported from.
      options: of the detections that they answer with.
      wanted: the files.
      encoded: the images.
      measure: from all detections to mAP, where the truth is known.

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
        reference = _run_net(net, options, pixels)
        expected = measure(reference) if measure else None
        entries = [_timed("keras", "TensorFlow", None, reference, expected)]
        # The op of TFLite has no limit of candidates.
        unlimited = _run_net(
            net,
            DetectionParams(**vars(options) | {"top_k": len(net.flat_anchors)}),
            pixels,
        )
        with command.progress("verifying", len(wanted), "files") as advance:
            for subject in wanted:
                of_op = subject.runtime == "LiteRT"
                entries.append(
                    _verify_one(
                        subject,
                        images,
                        unlimited if of_op else reference,
                        expected,
                        measure,
                    )
                )
                advance()
    return entries


def _prepare(image, net):
    size = net.params.img_shape
    return preprocessing.resize(preprocessing.decode(image), size).numpy()


def _run_net(net, options, pixels) -> Found:
    @tf.function
    def detect(images):
        whitened = preprocessing.whiten(images, net.params)
        return net.detect(whitened, options)._asdict()

    def run(images, _):
        found = detect(tf.constant(images))
        return {name: value.numpy() for name, value in found.items()}

    return runner.run_all(run, pixels, pixels, 1)


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


def _verify_one(subject, images, reference, expected, measure):
    name, runtime, path = subject
    try:
        found = runner.run_in_process(runtime, path, images)
    except runner.RunError as error:
        entry = {"name": name, "runtime": runtime, "path": str(path)}
        return entry | {"failures": [str(error)]}
    metric = measure(found) if measure else None
    entry = _timed(name, runtime, path, found, metric)
    entry |= compare(reference, found, TOLERANCES[name].overlap)
    entry["loss"] = None if metric is None else expected - metric
    return entry | {"failures": failures(entry, TOLERANCES[name])}


def compare(
    expected: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
    overlap: float,
) -> dict[str, float]:
    """Pairs the detections of images.

    Args:
      expected, found: detections of the same images.
      overlap: IoU from which two of one class are a pair; each goes with its
        best partner.

    Returns:
      `score` and `box`, the largest differences of pairs, and `matched`, the
      share of detections from a score of 0.05 on that have a partner.
    """
    scores, boxes, matched, counted = [0.0], [0.0], 0, 0
    for index in range(len(expected["num_detections"])):
        one, other = _image(expected, index), _image(found, index)
        alike = geometry.iou_matrix(one.detection_boxes, other.detection_boxes)
        alike = np.where(
            one.detection_classes[:, None] == other.detection_classes,
            alike,
            0.0,
        )
        for this, that, shares in ((one, other, alike), (other, one, alike.T)):
            real = this.detection_scores >= _MIN_SCORE
            counted += real.sum()
            if not (real.any() and shares.shape[1]):
                continue
            partner = shares.argmax(axis=1)
            paired = real & (shares.max(axis=1) >= overlap)
            matched += paired.sum()
            scores.append(_largest(this, that, "scores", paired, partner))
            boxes.append(_largest(this, that, "boxes", paired, partner))
    share = matched / counted if counted else 1.0
    return {
        "score": float(np.max(scores)),
        "box": float(np.max(boxes)),
        "matched": float(share),
    }


def _image(found, index) -> Detections:
    count = int(found["num_detections"][index])
    names = ("boxes", "scores", "classes")
    parts = (found[f"detection_{name}"][index][:count] for name in names)
    return Detections(*parts, count)


def _largest(this, that, what, paired, partner):
    name = f"detection_{what}"
    mine, others = getattr(this, name), getattr(that, name)
    difference = np.abs(mine[paired] - others[partner[paired]])
    return difference.max(initial=0.0)


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


def print_table(entries: Sequence[Mapping[str, Any]]) -> None:
    """Prints a row per file, and under it what is beyond tolerance."""
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
    command.print_table("one image at a time", titles, rows)


def write(export_dir: pathlib.Path, entries: Sequence[Mapping]) -> None:
    """Writes verify.json beside what it is about."""
    files.write_json(export_dir / VERIFY_FILE, {"models": list(entries)})
