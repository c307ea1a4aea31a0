"""One HTML page that shows a person where a detector fails.

Self-contained: styles, charts and pictures are inside, nothing is fetched. It
reads without JavaScript; with it, its tables can be sorted.
"""

import importlib.resources
import os
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np

from ssd_tf.command import files
from ssd_tf.command.versions import installed
from ssd_tf.evaluation.metrics import bootstrap, sizes, voc
from ssd_tf.evaluation.metrics.errors import MISSED
from ssd_tf.evaluation.metrics.outcomes import envelope
from ssd_tf.evaluation.report.charts import Line, Mark, bar_chart, line_chart
from ssd_tf.evaluation.report.pictures import Drawn

REPORT_DIR = "report"
REPORT_FILE = "index.html"
HEADLINES = {
    "AP_VOC07/mAP": "VOC07 mAP",
    "AP_VOC12/mAP": "VOC12 mAP",
    "COCO/AP": "COCO AP",
}
KINDS = {
    "localisation": "right class, box too far off",
    "classification": "right box, wrong class",
    "both": "wrong class and box too far off",
    "duplicate": "an object found again",
    "background": "found where nothing is",
    MISSED: "not found at all",
}
# Most confusions that are listed beside the matrix.
_MAX_CONFUSIONS = 12
# Classes of a matrix that a person can still read.
_MAX_MATRIX = 40


class Pictures(NamedTuple):
    """The drawn images of a report."""

    worst: Sequence[Drawn]
    best: Sequence[Drawn]


def write(
    eval_dir: str | os.PathLike,
    metrics: Mapping[str, Any],
    judged: bootstrap.Judged,
    pictures: Pictures,
    command: Sequence[str],
) -> pathlib.Path:
    """Writes the page.

    Args:
      eval_dir: where `report/index.html` goes.
      metrics: of `evaluate.measure` and `analysis.analyse`, with `model` and
        `data`, where they come from, and `class_names`.
      judged: every detection, right or wrong.
      pictures: the worst and the best.
      command: the arguments that this evaluation was started with.

    Returns:
      The page's path.
    """
    path = pathlib.Path(eval_dir) / REPORT_DIR / REPORT_FILE
    files.write_text(path, render(metrics, judged, pictures, command))
    return path


def render(
    metrics: Mapping[str, Any],
    judged: bootstrap.Judged,
    pictures: Pictures,
    command: Sequence[str],
) -> str:
    """Returns the page's text; see `write`."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, share=share, signed=signed)
    source = importlib.resources.files(__package__) / "report.html"
    template = environment.from_string(source.read_text("utf-8"))
    return template.render(
        metrics=metrics,
        names=metrics["class_names"],
        headlines=HEADLINES,
        intervals=(metrics["bootstrap"] or {}).get("intervals", {}),
        rows=_class_rows(metrics),
        curves=_class_charts(metrics, judged),
        by_iou=_overlap_chart(metrics["COCO_AP_by_iou"]),
        confusion=_confusion(metrics["confusion"]),
        errors=_error_chart(metrics["errors"]),
        kinds=KINDS,
        size_words=sizes.WORDS,
        pictures=pictures,
        command=shlex.join(command),
        versions=installed(),
    )


def percent(value: float | None) -> str:
    """Returns a share in per cent with one digit; a dash for none."""
    return "–" if value is None else f"{100 * value:.1f}"


def signed(value: float) -> str:
    """Returns a difference of shares in per cent, with its sign."""
    return f"{100 * value:+.1f}"


def share(value: float | None) -> str:
    """Returns a score with two digits; a dash for none."""
    return "–" if value is None else f"{value:.2f}"


def _class_rows(metrics):
    """Yields a row of the main table for each class."""
    for name in metrics["class_names"]:
        of_class = metrics["per_class"][name]
        yield {
            "name": name,
            "boxes": of_class["ground_truth"],
            "voc07": metrics[f"AP_VOC07/{name}"],
            "voc12": metrics[f"AP_VOC12/{name}"],
            "interval": (metrics["bootstrap"] or {})
            .get("intervals", {})
            .get(f"AP_VOC12/{name}"),
            "coco": metrics["COCO_per_class"][name],
            "best": of_class["best_f1"],
            "calibration": of_class["calibration"]["error"],
        }


def _class_charts(metrics, judged):
    """Yields the precision-recall curve and the calibration of each class."""
    for name in metrics["class_names"]:
        of_class = metrics["per_class"][name]
        if of_class["ground_truth"]:
            yield {
                "name": name,
                "curve": _curve(name, judged.voc[name], of_class["best_f1"]),
                "calibration": _calibration(name, of_class["calibration"]),
            }


def _curve(name, outcomes, best):
    curve = voc.curve(outcomes)
    # From recall 0 at the best precision, and down where recall ends.
    best_precision = envelope(curve.precision)
    first = best_precision[:1]
    recall = np.concatenate([[0.0], curve.recall, curve.recall[-1:]])
    height = np.concatenate([first, best_precision, [0.0][: len(first)]])
    marks = []
    if best:
        text = "best F1 {f1:.2f} at score {threshold:.2f}".format(**best)
        marks.append(Mark(best["recall"], best["precision"], text))
    if not len(first):
        recall = height = np.zeros(1)
    return line_chart(
        f"precision over recall of {name}",
        "recall",
        "precision",
        [Line(curve.recall, curve.precision, "faint"), Line(recall, height)],
        marks,
    )


def _calibration(name, calibration):
    bins = calibration["bins"]
    return line_chart(
        f"share of right detections over score of {name}",
        "score",
        "share that is right",
        [
            Line([0, 1], [0, 1], "ideal"),
            Line(
                [each["score"] for each in bins],
                [each["precision"] for each in bins],
                dots=True,
            ),
        ],
    )


def _overlap_chart(by_iou):
    overlaps, means = by_iou["iou"], by_iou["AP"]["mAP"]
    if means[0] is None or len(overlaps) < 2:
        return None
    return line_chart(
        "COCO AP over the overlap that a match needs",
        "IoU",
        "AP",
        [Line(overlaps, means, dots=True)],
        x_range=(0.5 if overlaps[0] >= 0.5 else 0.0, 1.0),
    )


def _confusion(confusion):
    """Returns rows with shares for the colours, and the largest confusions.

    Of very many classes the matrix is of the most confused.
    """
    counts = np.array(confusion["counts"])
    names = confusion["classes"]
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    shown = _most_confused(wrong)
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares = counts / totals
    rows = [
        {
            "name": names[i],
            "cells": list(
                zip(
                    counts[i, shown].tolist(),
                    shares[i, shown].tolist(),
                    strict=True,
                )
            ),
        }
        for i in shown
    ]
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MAX_CONFUSIONS]
    largest = [
        {"is": names[i], "called": names[j], "count": int(wrong[i, j])}
        for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[i, j]
    ]
    return {
        "names": [names[i] for i in shown],
        "left_out": len(names) - len(shown),
        "rows": rows,
        "largest": largest,
    }


def _most_confused(wrong):
    """Of the classes by number, the background and those with most mistakes
    among themselves, in order."""
    among = wrong[1:, 1:]
    mistakes = among.sum(axis=0) + among.sum(axis=1)
    order = np.argsort(-mistakes, kind="stable")[: _MAX_MATRIX - 1]
    return [0, *np.sort(order + 1).tolist()]


def _error_chart(errors):
    return bar_chart(
        "mean average precision that each kind of mistake costs",
        [
            (
                kind,
                errors[kind]["cost"],
                f"{signed(errors[kind]['cost'])} ({errors[kind]['count']})",
            )
            for kind in KINDS
        ],
    )
