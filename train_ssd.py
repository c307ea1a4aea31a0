"""Trains an SSD object detector.

  python train_ssd.py

without flags makes the built-in data set, trains a small net on it, evaluates
it, draws its detections and exports it: about six minutes on two CPU cores,
VOC07 mAP 0.90.

  python train_ssd.py --dataset_dir=data/voc --dataset_split_name=train \\
      --train_dir=runs/voc --model_name=ssd_300_vgg \\
      --validation_split_name=val

trains on a data set that ssd_tf.datasets.convert has written. The same
command again goes on from the last checkpoint. --checkpoint_path or
--backbone_weights start from weights, also from those of other classes.
"""

import dataclasses
import sys
from collections.abc import Callable

from absl import flags

from ssd_tf import command
from ssd_tf.config import flags as config_flags
from ssd_tf.config.net import Config, StartParams
from ssd_tf.config.training import LossParams, TrainParams
from ssd_tf.training import flags as unused_flags

FLAGS = flags.FlagValues()
config_flags.define_dataset(FLAGS, split="train")
config_flags.define_run(FLAGS)
config_flags.define_net(FLAGS)
config_flags.define(FLAGS, StartParams())
config_flags.define(FLAGS, TrainParams())
config_flags.define(FLAGS, LossParams())
config_flags.define_augmentation(FLAGS)


def open_split(
    split: str, class_names: tuple[str, ...]
) -> tuple[Callable, int]:
    """The reader of a split that has been checked, and how many images."""
    from ssd_tf.datasets import record_check

    return record_check.open_split(
        FLAGS.dataset_dir, split, len(class_names), FLAGS.unreadable_shards
    )


def train_on(split: str, settings: Config) -> None:
    """Trains on a split."""
    from ssd_tf.training import strategies, train
    from ssd_tf.training.validation import Validation
    from ssd_tf.weights import start as starts

    strategy = strategies.choose_strategy()
    read, num_samples = open_split(split, settings.class_names)
    validation = None
    if name := FLAGS.validation_split_name:
        read_val, num_images = open_split(name, settings.class_names)
        validation = Validation(read_val(None), num_images, name)
    options = config_flags.read(FLAGS, StartParams())
    settings, start = starts.begin(settings, FLAGS.train_dir, options)
    train.train(
        settings,
        FLAGS.train_dir,
        read,
        num_samples,
        strategy,
        start,
        validation,
        FLAGS.confirm_changes,
    )
    command.say(
        f"trained: {FLAGS.train_dir}; next: python eval_ssd.py "
        f"--dataset_dir={FLAGS.dataset_dir} --dataset_split_name=SPLIT "
        f"--checkpoint_path={FLAGS.train_dir}"
    )


def overfit_on(split: str, settings: Config) -> None:
    """Learns the first batch of a split by heart."""
    from ssd_tf.training import overfit

    read, num_samples = open_split(split, settings.class_names)
    overfit.overfit(settings, read(None), num_samples)


def main() -> None:
    """Reads the flags and trains; without any, the default run."""
    if len(sys.argv) == 1:
        command.load_tensorflow()
        from ssd_tf import demo

        demo.default_run()
        return
    command.require(FLAGS, "dataset_dir")
    if not FLAGS.overfit_batch:
        command.require(FLAGS, "train_dir")
        unused_flags.check_used(FLAGS)
    from ssd_tf.datasets import catalog

    for line in unused_flags.remarks(FLAGS):
        command.say(line)
    names = tuple(catalog.class_names(FLAGS.dataset_dir))
    settings = config_flags.read_config(FLAGS, names)
    command.load_tensorflow()
    from ssd_tf.datasets import records
    from ssd_tf.weights import start as starts

    if FLAGS.trunk:
        params = starts.with_trunk(settings.params, FLAGS.trunk)
        settings = dataclasses.replace(settings, params=params)
    split = FLAGS.dataset_split_name
    with records.explained_errors(
        FLAGS.dataset_dir, split, FLAGS.validation_split_name
    ):
        (overfit_on if FLAGS.overfit_batch else train_on)(split, settings)


def run() -> None:
    """The command `ssd-train`."""
    command.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    run()
