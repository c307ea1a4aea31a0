"""The log of a training run: metrics.jsonl and TensorBoard."""

import contextlib
import json
import math
import os
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_tf.command import files

LOG_FILE = "metrics.jsonl"


class MetricsLog:
    """Writes metrics.jsonl and TensorBoard of one run."""

    def __init__(self, train_dir: pathlib.Path, first_step: int):
        """Drops the lines of steps after `first_step`, which are repeated."""
        self._train_dir = pathlib.Path(train_dir)
        self._path = self._train_dir / LOG_FILE
        if self._path.exists():
            kept = [x for x in read(train_dir) if x["step"] <= first_step]
            lines = "".join(f"{json.dumps(x)}\n" for x in kept)
            files.write_text(self._path, lines)
        self._writers = {}

    def write(self, step: int, values: dict[str, float]) -> None:
        """Appends the values of a training step; non-finite ones as null.

        Gradients overflow now and then in mixed_float16.
        """
        finite = {k: v for k, v in values.items() if math.isfinite(v)}
        self._append({"step": step, **dict.fromkeys(values), **finite})
        self._summarise("train", step, finite)

    def write_evaluation(
        self, step: int, values: dict[str, float | str | None]
    ) -> None:
        """Appends the metrics of an evaluation.

        Args:
          step: training step of the weights.
          values: name of the `split`, and metrics by name, None where there
            is no ground truth.
        """
        self._append({"step": step, **values})
        numbers = {
            name: value
            for name, value in values.items()
            if name != "split" and value is not None
        }
        self._summarise(f"eval_{values['split']}", step, numbers)

    def write_pictures(
        self, step: int, name: str, pictures: np.ndarray
    ) -> None:
        """Shows pictures, uint8 [n, h, w, 3], in TensorBoard."""
        with self._writer("train").as_default():
            tf.summary.image(name, pictures, step, max_outputs=len(pictures))
        self._writer("train").flush()

    def _append(self, entry):
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")

    def _writer(self, folder):
        """Opens a folder of the train_dir, which TensorBoard shows as a run."""
        if folder not in self._writers:
            path = str(self._train_dir / folder)
            self._writers[folder] = tf.summary.create_file_writer(path)
        return self._writers[folder]

    def _summarise(self, folder, step, values):
        with self._writer(folder).as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step=step)
        self._writer(folder).flush()


def read(train_dir: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads the lines of a metrics.jsonl; none where there is no file.

    Lines of evaluations have a `split`.
    """
    path = pathlib.Path(train_dir) / LOG_FILE
    if not path.is_file():
        return []
    entries = []
    for line in path.read_text("utf-8").splitlines():
        # A process killed while it wrote leaves half a line.
        with contextlib.suppress(ValueError):
            entries.append(json.loads(line))
    return entries


def in_short(values: dict[str, float]) -> str:
    """Returns the loss and its terms in one short line."""
    names = {
        "cross_entropy_pos": "pos",
        "cross_entropy_neg": "neg",
        "localization": "loc",
        "regularization": "reg",
    }
    terms = " ".join(f"{x} {values[name]:.2f}" for name, x in names.items())
    return f"loss {values['loss']:.2f} = {terms}"
