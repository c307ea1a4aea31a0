"""Trains an SSD object detector.

  python train_ssd.py

without flags makes the built-in data set, trains a small net on it, evaluates
it, draws its detections and exports it: about six minutes on two CPU cores,
VOC07 mAP 0.90.

  python train_ssd.py --dataset_dir=data/voc --dataset_split_name=trainval \\
      --train_dir=runs/voc --model_name=ssd_300_vgg

trains on a data set that ssd_tf.datasets.convert has written. The same
command again goes on from the last checkpoint. --checkpoint_path or
--backbone_weights start from weights, also from those of other classes.
"""

import dataclasses
import sys

from absl import flags

from ssd_tf import command, config_flags
from ssd_tf.command import UserError
from ssd_tf.config import Config, StartParams
from ssd_tf.recipe import LossParams, TrainParams

FLAGS = flags.FlagValues()
config_flags.define_dataset(FLAGS, split="train")
flags.DEFINE_string(
    "train_dir",
    None,
    "Where checkpoints, config.json and logs go.",
    flag_values=FLAGS,
)
config_flags.define_net(FLAGS)
config_flags.define(FLAGS, StartParams())
config_flags.define(FLAGS, TrainParams())
config_flags.define(FLAGS, LossParams())
config_flags.define_augmentation(FLAGS)


def make_config(class_names: tuple[str, ...]) -> Config:
    """What the flags say of a data set's classes."""
    params = dataclasses.replace(
        config_flags.read_net(FLAGS), num_classes=len(class_names) + 1
    )
    parts = TrainParams(
        loss=config_flags.read(FLAGS, LossParams()),
        augmentation=config_flags.read_augmentation(FLAGS),
    )
    training = config_flags.read(FLAGS, parts)
    return Config(params, class_names, training)


def main() -> None:
    """Reads the flags and trains; without any, the default run."""
    if len(sys.argv) == 1:
        command.load_tensorflow()
        from ssd_tf import default_run

        default_run.default_run()
        return
    command.require(FLAGS, "dataset_dir", "train_dir")
    from ssd_tf.datasets import catalog

    settings = make_config(tuple(catalog.class_names(FLAGS.dataset_dir)))
    command.load_tensorflow()
    from ssd_tf import starts, strategies, train
    from ssd_tf.datasets import records

    strategy = strategies.choose_strategy()
    split = FLAGS.dataset_split_name
    num_samples = records.count(FLAGS.dataset_dir, split)
    if not num_samples:
        raise UserError(f"{FLAGS.dataset_dir}: no image in split {split!r}")
    records.check_labels(FLAGS.dataset_dir, split, len(settings.class_names))
    if FLAGS.trunk:
        params = starts.with_trunk(settings.params, FLAGS.trunk)
        settings = dataclasses.replace(settings, params=params)
    options = config_flags.read(FLAGS, StartParams())
    settings, start = starts.begin(settings, FLAGS.train_dir, options)
    train.train(
        settings,
        FLAGS.train_dir,
        records.read(
            FLAGS.dataset_dir,
            split,
            shuffle_files=True,
            seed=settings.training.seed,
        ),
        num_samples,
        strategy,
        start,
    )
    command.say(
        f"trained: {FLAGS.train_dir}; next: python eval_ssd.py "
        f"--dataset_dir={FLAGS.dataset_dir} --dataset_split_name=SPLIT "
        f"--checkpoint_path={FLAGS.train_dir}"
    )


def run() -> None:
    """The command `ssd-train`."""
    command.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    run()
