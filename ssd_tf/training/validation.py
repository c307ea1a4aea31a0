"""Evaluation inside a training run, and the best checkpoint it leaves.

An evaluation changes no state of the training. The best value so far and
early stopping follow from the lines of metrics.jsonl alone: a run that was
killed and continues decides as one that was not.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ssd_tf import command
from ssd_tf.command import UserError, files
from ssd_tf.config import run as config
from ssd_tf.evaluation import evaluate
from ssd_tf.input_pipeline import batches
from ssd_tf.nets import checkpoint
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.training import log as metrics_log
from ssd_tf.training.run import explained_writes, keep_only

BEST_DIR = "best"
History = Sequence[tuple[int, float]]  # step and value of each evaluation
# Short names of the choices of `TrainParams.best_metric`.
_SHORT = {
    "AP_VOC07/mAP": "VOC07 mAP",
    "AP_VOC12/mAP": "VOC12 mAP",
    "COCO/AP": "COCO AP",
}


@dataclasses.dataclass(frozen=True)
class Validation:
    """The images that a run is evaluated on."""

    records: tf.data.Dataset  # parsed, one pass, in a fixed order
    num_images: int
    split: str  # name of the images
    batch_size: int = 8


class Validator:
    """Evaluates the net of one run repeatedly."""

    def __init__(
        self,
        validation: Validation,
        settings: config.Config,
        train_dir: str | os.PathLike,
    ):
        """Prepares the images.

        Args:
          validation: the images.
          settings: settings of the run, with the params of the built net.
          train_dir: folder of the run.

        Raises:
          UserError: there are no images.
        """
        if not validation.num_images:
            raise UserError(
                f"split {validation.split!r}: no image to evaluate on; choose "
                "another --validation_split_name"
            )
        self._validation = validation
        self._split = validation.split
        self._settings = settings
        self._train_dir = pathlib.Path(train_dir)
        self._batches = batches.make_for_eval(
            validation.records,
            batches.prepare_for(settings.params),
            validation.batch_size,
        )
        self._detect = None

    def run(
        self,
        net: SSDNet,
        step: int,
        average: Any,
        log: metrics_log.MetricsLog,
    ) -> dict[str, Any]:
        """Evaluates the net, saves it if it is the best so far, and logs.

        The line in metrics.jsonl comes last: a process killed before it
        evaluates this step once more.

        Args:
          net: net of the run, the same in every call.
          step: training step of its weights.
          average: average of the weights, which is evaluated and saved
            instead, or None.
          log: log of the run.

        Returns:
          The metrics, see `evaluate.evaluate`.
        """
        # Compiled once: each graph stays in memory.
        self._detect = self._detect or evaluate.make_detect(net)
        metric = self._settings.training.best_metric
        with average.swapped_in() if average else contextlib.nullcontext():
            metrics = self._evaluate(net)
            before = [x for x in self.history() if x[0] < step]
            source = {"step": step, "split": self._split}
            if is_best(before, metrics[metric]):
                with explained_writes(self._train_dir):
                    save_best(
                        net,
                        self._settings,
                        self._train_dir,
                        {**metrics, **source},
                    )
        with explained_writes(self._train_dir):
            log.write_evaluation(
                step, {"split": self._split, **_scalars(metrics)}
            )
        value = metrics[metric]
        command.say(in_short(before, step, self._split, metric, value))
        return metrics

    def _evaluate(self, net):
        with batches.explained_errors(
            self._validation.records.as_numpy_iterator,
            self._settings.params.num_classes,
            f"split {self._split!r} cannot be evaluated on",
        ):
            return evaluate.evaluate(
                net,
                self._batches,
                self._settings.class_names,
                detect=self._detect,
                quiet=True,
            )

    def history(self) -> History:
        """Returns the evaluations so far, by the metric that decides."""
        metric = self._settings.training.best_metric
        return history(self._train_dir, self._split, metric)

    def has_run(self, step: int) -> bool:
        """Tells whether this step has been evaluated, now or before a kill."""
        return any(
            entry["step"] == step and entry.get("split") == self._split
            for entry in metrics_log.read(self._train_dir)
        )

    def should_stop(self) -> bool:
        """Tells whether `early_stopping_patience` is exhausted."""
        patience = self._settings.training.early_stopping_patience
        return should_stop(self.history(), patience)


def _scalars(metrics: dict[str, Any]) -> dict[str, float | None]:
    return {
        name: value
        for name, value in metrics.items()
        if name.startswith(("AP_", "COCO/"))
    }


def history(
    train_dir: str | os.PathLike, split: str, metric: str
) -> list[tuple[int, float]]:
    """Reads step and value of each evaluation in metrics.jsonl, by step.

    Evaluations without ground truth are left out; of two of a step the later
    one counts.
    """
    values = {
        entry["step"]: entry[metric]
        for entry in metrics_log.read(train_dir)
        if entry.get("split") == split and entry.get(metric) is not None
    }
    return sorted(values.items())


def best_of(evaluations: History) -> tuple[int, float] | None:
    """Returns the first evaluation with the largest value."""
    return max(evaluations, key=lambda item: item[1], default=None)


def is_best(before: History, value: float | None) -> bool:
    """Tells whether a value is larger than all before it."""
    best = best_of(before)
    return value is not None and (best is None or value > best[1])


def should_stop(evaluations: History, patience: int) -> bool:
    """Tells whether the best is `patience` evaluations old; never for 0."""
    if not patience or not evaluations:
        return False
    best = best_of(evaluations)
    return len(evaluations) - 1 - evaluations.index(best) >= patience


def in_short(
    before: History, step: int, split: str, metric: str, value: float | None
) -> str:
    """Returns one line such as `step 500, val: VOC07 mAP 0.812 (...)`."""
    name = f"step {step}, {split}: {_SHORT.get(metric, metric)}"
    if value is None:
        return f"{name} -, no ground truth"
    if is_best(before, value):
        return f"{name} {value:.3f} (the best so far)"
    best_step, best = best_of(before)
    return f"{name} {value:.3f} (best {best:.3f} at {best_step})"


def save_best(
    net: SSDNet,
    settings: config.Config,
    train_dir: str | os.PathLike,
    metrics: dict[str, Any],
) -> None:
    """Saves weights in `train_dir/best`, in place of those there.

    A process killed at any moment leaves the old ones or the new ones.

    Args:
      net: net with the weights that were evaluated.
      settings: settings of the run, for `checkpoint.load_net`.
      train_dir: folder of the run.
      metrics: metrics of the weights and their `step`, for metrics.json.
    """
    folder = pathlib.Path(train_dir) / BEST_DIR
    folder.mkdir(parents=True, exist_ok=True)
    config.save(settings, folder)
    prefix = f"{checkpoint.PREFIX}-{metrics['step']}"
    name = checkpoint.PREFIX
    # A run that continues from an earlier step reaches the same step again. The
    # files of a checkpoint cannot be replaced all at once, so the new ones get
    # another name.
    if tf.train.latest_checkpoint(str(folder)) == str(folder / prefix):
        name = f"{checkpoint.PREFIX}-again"
    # The manager names the new checkpoint in the file `checkpoint`, by one
    # rename, and then deletes the old one.
    tf.train.CheckpointManager(
        tf.train.Checkpoint(model=net.model),
        str(folder),
        max_to_keep=1,
        checkpoint_name=name,
    ).save(checkpoint_number=metrics["step"])
    files.write_json(folder / evaluate.METRICS_FILE, metrics)
    # Killed processes may have left other checkpoints, whole or partial.
    keep_only(folder, {checkpoint.find(folder).name})
