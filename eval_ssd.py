"""Evaluates a trained SSD: VOC07, VOC12 and COCO metrics.

  python eval_ssd.py --dataset_dir=data/voc --dataset_split_name=test \\
      --checkpoint_path=runs/voc

prints a table and writes metrics.json into --eval_dir.
"""

import math
import pathlib

from absl import flags

from ssd_tf import command, config_flags, files
from ssd_tf.command import UserError
from ssd_tf.config import DetectionParams

FLAGS = flags.FlagValues()
config_flags.define_dataset(FLAGS, split="test")
config_flags.define_checkpoint_path(FLAGS)
flags.DEFINE_string(
    "eval_dir",
    None,
    "Where metrics.json goes [eval_SPLIT beside the checkpoint].",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "batch_size", 8, "Images at once.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_integer(
    "max_num_batches",
    None,
    "Evaluate the first batches only.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "matching_threshold",
    0.5,
    "IoU beyond which a VOC detection is right.",
    lower_bound=0,
    upper_bound=0.99,
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "wait_for_checkpoints",
    False,
    "Evaluate every new checkpoint of a train_dir, until interrupted.",
    flag_values=FLAGS,
)
config_flags.define(FLAGS, DetectionParams())


def evaluate_checkpoint(checkpoint_path: str | pathlib.Path) -> None:
    """Evaluates one checkpoint: table on screen, metrics.json on disk."""
    from ssd_tf import checkpoint, evaluate, input_pipeline
    from ssd_tf.datasets import catalog, record_check, records

    prefix = checkpoint.find(checkpoint_path)
    net = checkpoint.load_net(prefix)
    settings = checkpoint.load_config(prefix)
    split = FLAGS.dataset_split_name
    names = tuple(catalog.class_names(FLAGS.dataset_dir))
    if names != settings.class_names:
        raise UserError(
            f"{FLAGS.dataset_dir}: its classes are {', '.join(names)}, those "
            f"of {prefix} {', '.join(settings.class_names)}; convert the data "
            "with --labels"
        )
    where, policy = (FLAGS.dataset_dir, split), FLAGS.unreadable_shards
    record_check.check_annotations(*where, len(names), policy)
    data = records.read(*where, unreadable_shards=policy)
    batches = input_pipeline.make_for_eval(data, net.params, FLAGS.batch_size)
    num_images = records.count(*where, policy)
    num_batches = math.ceil(num_images / FLAGS.batch_size)
    if FLAGS.max_num_batches:
        batches = batches.take(FLAGS.max_num_batches)
        num_batches = min(num_batches, FLAGS.max_num_batches)
    with (
        records.explained_errors(*where),
        input_pipeline.explained_errors(
            data.as_numpy_iterator,
            net.params.num_classes,
            f"split {split!r} cannot be evaluated on",
        ),
    ):
        metrics = evaluate.evaluate(
            net,
            batches,
            settings.class_names,
            config_flags.read(FLAGS, DetectionParams()),
            FLAGS.matching_threshold,
            num_batches,
        )
    evaluate.print_metrics(metrics, settings.class_names)
    eval_dir = pathlib.Path(FLAGS.eval_dir or prefix.parent / f"eval_{split}")
    path = eval_dir / evaluate.METRICS_FILE
    source = {
        "checkpoint": str(prefix),
        "step": checkpoint.step_of(prefix),
        "dataset_dir": FLAGS.dataset_dir,
        "split": split,
    }
    files.write_json(path, {**metrics, **source})
    command.say(f"{path}")


def main() -> None:
    """Reads the flags and evaluates."""
    command.require(FLAGS, "dataset_dir", "checkpoint_path")
    command.load_tensorflow()
    if not FLAGS.wait_for_checkpoints:
        evaluate_checkpoint(FLAGS.checkpoint_path)
        return
    if not pathlib.Path(FLAGS.checkpoint_path).is_dir():
        raise UserError(
            f"--checkpoint_path={FLAGS.checkpoint_path}: no such folder; "
            "--wait_for_checkpoints wants a train_dir"
        )
    import tensorflow as tf

    command.say(f"waiting for checkpoints in {FLAGS.checkpoint_path}")
    for prefix in tf.train.checkpoints_iterator(FLAGS.checkpoint_path):
        evaluate_checkpoint(prefix)


def run() -> None:
    """The command `ssd-eval`."""
    command.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    run()
