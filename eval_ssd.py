"""Evaluates a detector: VOC07, VOC12 and COCO metrics, and its mistakes.

  python eval_ssd.py --dataset_dir=data/voc --dataset_split_name=test \\
      --checkpoint_path=runs/voc

prints a table and writes metrics.json and report/index.html into --eval_dir.
--dataset_dir may also be a VOC tree or a COCO annotation file, and
--checkpoint_path a SavedModel, a .tflite or .onnx file, or detections in
COCO's format.

  python eval_ssd.py --compare A/metrics.json B/metrics.json

tells whether B is better than A on the same images, or only luckier.
"""

import csv
import dataclasses
import io
import os
import pathlib
import sys
from collections.abc import Sequence

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.command.settings import require
from ssd_tf.config.evaluation import EvalOptions


def joined_compare(argv: Sequence[str]) -> list[str]:
    """Turns `--compare A B` into `--compare=A,B`, as absl wants it."""
    argv = list(argv)
    if "--compare" in argv:
        at = argv.index("--compare")
        # As absl reads a list: a path with a comma is in quotes.
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(argv[at + 1 : at + 3])
        argv[at : at + 3] = [f"--compare={text.getvalue()}"]
    return argv


def compare(options: EvalOptions) -> None:
    """Compares two evaluations."""
    from ssd_tf.evaluation import comparison

    if len(options.compare) != 2:
        raise UserError(
            f"--compare={','.join(options.compare)}: expected two metrics.json"
        )
    metrics = options.metrics
    differences = comparison.compare(
        *options.compare, metrics.bootstrap, metrics.seed
    )
    comparison.print_comparison(differences)


def evaluate_all(options: EvalOptions) -> None:
    """Evaluates every checkpoint of a train_dir, as it appears."""
    from ssd_tf.evaluation import run as evaluation

    train_dir = options.checkpoint_path
    if not pathlib.Path(train_dir).is_dir():
        raise UserError(
            f"--checkpoint_path={train_dir}: no such folder; "
            "--wait_for_checkpoints wants a train_dir"
        )
    import tensorflow as tf

    command.say(f"waiting for checkpoints in {train_dir}")
    for prefix in tf.train.checkpoints_iterator(train_dir):
        evaluation.run(dataclasses.replace(options, checkpoint_path=prefix))


def main(options: EvalOptions) -> None:
    """Evaluates, or compares two evaluations."""
    if options.compare is not None:
        compare(options)
        return
    require(options, "dataset_dir", "checkpoint_path")
    command.load_tensorflow()
    from ssd_tf.evaluation import run as evaluation

    metrics = dataclasses.replace(
        options.metrics, num_workers=os.cpu_count() or 1
    )
    options = dataclasses.replace(options, metrics=metrics)
    if options.wait_for_checkpoints:
        evaluate_all(options)
    else:
        evaluation.run(options)


def run() -> None:
    """Runs the command `ssd-eval`."""
    command.run(main, EvalOptions, __doc__, joined_compare(sys.argv))


if __name__ == "__main__":
    run()
