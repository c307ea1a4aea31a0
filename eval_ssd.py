"""Evaluates a detector: VOC07, VOC12 and COCO metrics, and where it fails.

  python eval_ssd.py --dataset_dir=data/voc --dataset_split_name=test \\
      --checkpoint_path=runs/voc

prints a table and writes metrics.json and report/index.html into --eval_dir.
--dataset_dir may also be a VOC tree or a COCO annotation file, and
--checkpoint_path a SavedModel, a .tflite or .onnx file, or detections in
COCO's format.

  python eval_ssd.py --compare A/metrics.json B/metrics.json

tells whether B is better than A on the same images, or only luckier.
"""

import math
import pathlib
import sys

from absl import flags

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.evaluation import flags as eval_flags

FLAGS = flags.FlagValues()
eval_flags.define(FLAGS)


def evaluate_detector(path: str) -> None:
    """Evaluates one detector: table on screen, files on disk."""
    from ssd_tf.datasets import records
    from ssd_tf.detect import detectors
    from ssd_tf.evaluation import evaluate, split
    from ssd_tf.evaluation import run as eval_run
    from ssd_tf.input_pipeline import batches as input_pipeline

    where = FLAGS.dataset_dir, FLAGS.dataset_split_name
    truth = split.open_split(
        path, *where, FLAGS.labels, FLAGS.unreadable_shards, FLAGS.image_dir
    )
    options = eval_flags.read_detection(FLAGS, detectors.has_options(path))
    predictor = detectors.load(
        path, options, truth.category_ids, FLAGS.dataset_dir
    )
    data = truth.read(with_images=not detectors.is_detections(path))
    batches = input_pipeline.make_for_eval(
        data, None, FLAGS.batch_size, predictor.prepare
    )
    num_batches = math.ceil(truth.num_images / FLAGS.batch_size)
    if FLAGS.max_num_batches:
        batches = batches.take(FLAGS.max_num_batches)
        num_batches = min(num_batches, FLAGS.max_num_batches)
    with (
        records.explained_errors(*where),
        input_pipeline.explained_errors(
            data.as_numpy_iterator,
            len(truth.class_names) + 1,
            f"split {where[1]!r} cannot be evaluated on",
        ),
    ):
        images = evaluate.collect(
            predictor.predict, batches, len(truth.class_names), num_batches
        )
    eval_run.finish(
        images,
        truth,
        predictor,
        eval_flags.read(FLAGS),
        eval_flags.eval_dir(FLAGS, path, predictor.source["checkpoint"]),
        command.command_line(),
    )


def compare() -> None:
    """Compares two evaluations."""
    from ssd_tf.evaluation import comparison

    if len(FLAGS.compare) != 2:
        raise UserError(
            f"--compare={','.join(FLAGS.compare)}: expected two metrics.json"
        )
    differences = comparison.compare(
        *FLAGS.compare, FLAGS.bootstrap, FLAGS.seed
    )
    comparison.print_comparison(differences)


def main() -> None:
    """Reads the flags and evaluates."""
    if FLAGS.compare is not None:
        compare()
        return
    command.require(FLAGS, "dataset_dir", "checkpoint_path")
    command.load_tensorflow()
    if not FLAGS.wait_for_checkpoints:
        evaluate_detector(FLAGS.checkpoint_path)
        return
    if not pathlib.Path(FLAGS.checkpoint_path).is_dir():
        raise UserError(
            f"--checkpoint_path={FLAGS.checkpoint_path}: no such folder; "
            "--wait_for_checkpoints wants a train_dir"
        )
    import tensorflow as tf

    command.say(f"waiting for checkpoints in {FLAGS.checkpoint_path}")
    for prefix in tf.train.checkpoints_iterator(FLAGS.checkpoint_path):
        evaluate_detector(prefix)


def run() -> None:
    """The command `ssd-eval`."""
    argv = eval_flags.joined_compare(sys.argv)
    command.run(main, FLAGS, __doc__, argv)


if __name__ == "__main__":
    run()
