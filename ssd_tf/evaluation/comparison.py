"""Two evaluations of the same images: is the second model better, or lucky?

`matches.npz` lies beside metrics.json and holds, for every detection, whether
it was right; with it two models are compared on the same resampled images.
"""

import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssd_tf import command
from ssd_tf.command import UserError, files
from ssd_tf.evaluation.metrics import bootstrap
from ssd_tf.evaluation.metrics.bootstrap import Difference, Judged
from ssd_tf.evaluation.metrics.outcomes import Outcomes

MATCHES_FILE = "matches.npz"
# What two evaluations have to have in common, and what it is called.
_COMPARED = {
    "num_images": "images",
    "ground_truth_sha256": "ground truth",
    "class_names": "classes",
    "protocol": "protocols",
}
# What NumPy raises on files that are cut off, damaged or none of its own.
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError),
    *(EOFError, zipfile.BadZipFile, zlib.error),
)


def save(path: str | os.PathLike, judged: Judged) -> None:
    """Writes the outcomes of all classes."""
    arrays = {}
    for protocol, by_class in judged._asdict().items():
        arrays[f"{protocol}/names"] = np.array(list(by_class))
        for number, outcomes in enumerate(by_class.values()):
            for field, values in outcomes._asdict().items():
                arrays[f"{protocol}/{number}/{field}"] = values
    with files.replace_file(path) as temporary:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)


def load(path: str | os.PathLike) -> Judged:
    """Reads what `save` wrote.

    Raises:
      UserError: there is none, or it is another file.
    """
    try:
        # NumPy leaves a file open that is no archive.
        with (
            pathlib.Path(path).open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            return Judged(
                *(_load_protocol(arrays, name) for name in Judged._fields)
            )
    except _UNREADABLE as error:
        raise UserError(
            f"{path}: cannot be read ({error}); eval_ssd.py writes it beside "
            "metrics.json"
        ) from error


def _load_protocol(arrays, protocol):
    return {
        str(name): Outcomes(
            *(
                arrays[f"{protocol}/{number}/{field}"]
                for field in Outcomes._fields
            )
        )
        for number, name in enumerate(arrays[f"{protocol}/names"])
    }


def compare(
    first: str | os.PathLike,
    second: str | os.PathLike,
    num_samples: int = 1000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compares two evaluations by their metrics.json.

    Args:
      first, second: the files.
      num_samples, seed: of the bootstrap over images; 0 samples: no
        intervals.

    Returns:
      By metric, what the second is better by.

    Raises:
      UserError: one is not there, or they are not of the same images, classes
        and protocol.
    """
    metrics = [_read(path) for path in (first, second)]
    for key, what in _COMPARED.items():
        a, b = (_comparable(each, key) for each in metrics)
        if a != b:
            values = "" if isinstance(a, str | dict) else f" ({a} and {b})"
            raise UserError(
                f"{first} and {second}: have different {what}{values}; "
                "evaluate both on the same split in the same way"
            )
    judged = [
        _load_of(path, each)
        for path, each in zip((first, second), metrics, strict=True)
    ]
    return bootstrap.compare(
        *judged, metrics[0]["num_images"], num_samples, seed
    )


def _load_of(path: str | os.PathLike, metrics: Mapping[str, Any]) -> Judged:
    """Returns the outcomes that a metrics.json was computed from.

    Raises:
      UserError: those beside it are another evaluation's.
    """
    matches = pathlib.Path(path).with_name(MATCHES_FILE)
    judged = load(matches)
    if not _is_of(judged, metrics):
        raise UserError(
            f"{matches}: is of another evaluation than {path}; evaluate again "
            "(or copy both files)"
        )
    return judged


def _is_of(judged, metrics):
    images = metrics["num_images"]
    for by_class in judged:
        if [*by_class] != metrics["class_names"]:
            return False
        if any(len(x.num_ground_truth) != images for x in by_class.values()):
            return False
    found = bootstrap.sample(judged, np.ones((images, 1), int))
    return all(
        np.isclose(values[0], metrics[name], rtol=0, atol=1e-9)
        for name, values in found.items()
        if metrics.get(name) is not None
    )


def _comparable(metrics: Mapping[str, Any], key: str) -> Any:
    value = metrics[key]
    if key == "protocol":  # how each detects is its own affair
        return {name: value[name] for name in ("VOC", "COCO")}
    return value


def _read(path):
    path = pathlib.Path(path)
    try:
        metrics = json.loads(path.read_text("utf-8"))
        for key in _COMPARED:
            metrics[key]
        return metrics
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: is no metrics.json of eval_ssd.py (it has no {error})"
        ) from error


def print_comparison(differences: Mapping[str, Difference]) -> None:
    """Shows a table of differences with their intervals."""

    def signed(value):
        return f"{100 * value:+.1f}"

    def told(interval):
        return f"{signed(interval.low)} to {signed(interval.high)}"

    rows = [
        [
            name,
            f"{100 * each.first:.1f}",
            f"{100 * each.second:.1f}",
            signed(each.difference),
            told(each.interval) if each.interval else "-",
            _verdict(each.interval),
        ]
        for name, each in differences.items()
    ]
    sampled = any(each.interval for each in differences.values())
    words = f", {100 * bootstrap.LEVEL:.0f} % intervals over the images"
    command.print_table(
        "in %" + words * sampled,
        ["metric", "first", "second", "difference", "interval", "second is"],
        rows,
    )


def _verdict(interval: bootstrap.Interval | None) -> str:
    if interval is None:
        return "-"
    if interval.low > 0:
        return "better"
    return "worse" if interval.high < 0 else "not told apart"
