"""Draws the learning curve of a run.

  python -m ssd_tf.curves --train_dir=TRAIN_DIR

draws TRAIN_DIR/metrics.jsonl into TRAIN_DIR/curves.png: the loss and its
terms, the learning rate, and whatever else the run has logged of the norm of
its gradients, its evaluations and the time that it waited for data.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssd_tf import command
from ssd_tf.command import UserError, files
from ssd_tf.command.settings import require, setting

CURVES_FILE = "curves.png"
WIDTH, ROW_HEIGHT, DPI = 12.0, 3.2, 100  # inches, and pixels of one
# Window of the smoothed lines, as a share of all log entries.
SMOOTHED_SHARE = 0.05
TERMS = {
    "loss": "all",
    "cross_entropy_pos": "objects' class",
    "cross_entropy_neg": "background's class",
    "localization": "boxes",
    "regularization": "weight decay",
}
# Panels with one line: name in the log, title, scale of the y axis.
SINGLE = (
    ("learning_rate", "learning rate", "linear"),
    ("gradient_norm", "norm of the gradients, before clipping", "log"),
    ("data_wait", "share of time waiting for data", "linear"),
)
METRICS = ("AP_VOC07/mAP", "AP_VOC12/mAP", "COCO/AP", "COCO/AP50")


def smooth(values: Sequence[float], window: int) -> np.ndarray:
    """Computes means over `window` values around each, fewer at both ends.

    Args:
      values: numbers [n].
      window: odd number of values.

    Returns:
      float64 [n].
    """
    values = np.asarray(values, np.float64)
    half = window // 2
    sums = np.cumsum(np.concatenate([[0.0], values]))
    index = np.arange(len(values))
    first = np.maximum(index - half, 0)
    last = np.minimum(index + half + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


@dataclasses.dataclass(frozen=True)
class CurvesOptions:
    """The settings of `python -m ssd_tf.curves`."""

    train_dir: str | None = setting(
        None, "Folder of the run, with its metrics.jsonl.", "curves"
    )


def draw(train_dir: str | os.PathLike) -> pathlib.Path:
    """Draws `curves.png` into a train_dir, in place of an older one.

    Returns:
      The path of the picture.

    Raises:
      UserError: nothing has been logged.
    """
    from matplotlib import figure

    from ssd_tf.training import log

    train_dir = pathlib.Path(train_dir)
    entries = log.read(train_dir)
    if not entries:
        raise UserError(
            f"{train_dir / log.LOG_FILE}: nothing in it; name a "
            "--train_dir in which train_ssd.py has logged"
        )
    # Not pyplot, which keeps what it has drawn.
    sheet = figure.Figure(dpi=DPI, layout="constrained")
    _draw_panels(sheet, entries)
    sheet.suptitle(str(train_dir))
    path = train_dir / CURVES_FILE
    with files.replace_file(path) as temporary:
        sheet.savefig(temporary, format="png")
    return path


def _draw_panels(sheet: Any, entries: list[dict[str, Any]]) -> None:
    """Draws the loss in the whole width, the others side by side below."""
    steps = [entry for entry in entries if "split" not in entry]
    evaluations = [entry for entry in entries if "split" in entry]
    single = [each for each in SINGLE if any(each[0] in x for x in steps)]
    number = len(single) + bool(evaluations)
    rows = 1 + -(-number // 2)
    sheet.set_size_inches(WIDTH, ROW_HEIGHT * rows)
    grid = sheet.add_gridspec(rows, 2)
    places = iter(
        grid[row, column] for row in range(1, rows) for column in (0, 1)
    )
    _draw_losses(sheet.add_subplot(grid[0, :]), steps)
    if evaluations:
        _draw_evaluations(sheet.add_subplot(next(places)), evaluations)
    for name, title, scale in single:
        panel = sheet.add_subplot(next(places))
        # The learning rate has corners, and no noise.
        share = 0.0 if name == "learning_rate" else SMOOTHED_SHARE
        _draw_line(panel, steps, name, title, "C0", share)
        _finish(panel, title, scale)


def _draw_line(panel, entries, name, label, color, share=SMOOTHED_SHARE):
    """Draws the values of a name, pale, and their smoothed line."""
    points = [(x["step"], x[name]) for x in entries if x.get(name) is not None]
    if not points:
        return
    steps, values = zip(*points, strict=True)
    window = max(1, round(share * len(values))) | 1
    panel.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
    panel.plot(steps, smooth(values, window), color=color, label=label)


def _draw_losses(panel, steps):
    for index, (name, label) in enumerate(TERMS.items()):
        _draw_line(panel, steps, name, label, f"C{index}")
    _finish(panel, "loss and its terms", "log")
    if steps:
        panel.legend(ncols=len(TERMS), fontsize="small")


def _draw_evaluations(panel, evaluations):
    """Draws a line for each split and metric, its best value marked."""
    index = 0
    for split in dict.fromkeys(entry["split"] for entry in evaluations):
        for metric in METRICS:
            # Of two evaluations of a step the later one counts.
            points = {
                entry["step"]: entry[metric]
                for entry in evaluations
                if entry["split"] == split and entry.get(metric) is not None
            }
            if points:
                label = f"{split}: {metric}"
                _draw_metric(panel, sorted(points.items()), label, f"C{index}")
                index += 1
    _finish(panel, "evaluations, the best of each marked", "linear")
    panel.set_ylim(0, 1)
    if index:
        panel.legend(fontsize="small", loc="best")


def _draw_metric(panel, points, label, color):
    step, best = max(points, key=lambda point: point[1])
    steps, values = zip(*points, strict=True)
    label = f"{label} {best:.3f} at {step}"
    panel.plot(steps, values, ".-", color=color, label=label)
    panel.plot([step], [best], "*", color=color, markersize=12)


def _finish(panel, title, scale):
    panel.set_title(title, fontsize="medium")
    panel.set_xlabel("step", fontsize="small")
    panel.set_yscale(
        scale, **({"nonpositive": "mask"} if scale == "log" else {})
    )
    panel.grid(alpha=0.3)


def main(options: CurvesOptions) -> None:
    """Draws the curves and prints the path of the picture."""
    require(options, "train_dir")
    command.load_tensorflow()
    command.say(f"{draw(options.train_dir)}")


def run() -> None:
    """Runs the command `ssd-curves`."""
    command.run(main, CurvesOptions, __doc__)


if __name__ == "__main__":
    run()
