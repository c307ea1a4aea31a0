"""What a run says of its steps: metrics.jsonl and TensorBoard."""

import json
import pathlib

import tensorflow as tf

from ssd_tf import files

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """metrics.jsonl and TensorBoard scalars of one run, in step."""

    def __init__(self, train_dir: pathlib.Path, first_step: int):
        """Drops the lines of steps that a killed run did and we do again."""
        self._path = train_dir / METRICS_FILE
        if self._path.exists():
            kept = [
                line
                for line in self._path.read_text("utf-8").splitlines()
                if _is_entry(line) and json.loads(line)["step"] <= first_step
            ]
            files.write_text(self._path, "".join(f"{x}\n" for x in kept))
        self._writer = tf.summary.create_file_writer(str(train_dir / "train"))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Appends the values of a step."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        with self._writer.as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step=step)
        self._writer.flush()


def _is_entry(line: str) -> bool:
    """A process killed while it wrote leaves half a line."""
    try:
        return "step" in json.loads(line)
    except ValueError:
        return False


def in_short(values: dict[str, float]) -> str:
    """The loss and its terms, short enough to stand beside a bar."""
    names = {
        "cross_entropy_pos": "pos",
        "cross_entropy_neg": "neg",
        "localization": "loc",
        "regularization": "reg",
    }
    terms = " ".join(f"{x} {values[name]:.2f}" for name, x in names.items())
    return f"loss {values['loss']:.2f} = {terms}"
