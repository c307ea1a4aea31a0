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
from collections.abc import Callable

from ssd_tf import command
from ssd_tf.command.settings import require
from ssd_tf.config.run import Config
from ssd_tf.config.training import TrainOptions
from ssd_tf.training import options as training_options


def open_split(
    options: TrainOptions, split: str, class_names: tuple[str, ...]
) -> tuple[Callable, int]:
    """Returns the reader of a split that was checked, and its image count."""
    from ssd_tf.datasets import record_check

    return record_check.open_split(
        options.dataset_dir, split, len(class_names), options.unreadable_shards
    )


def train_on(options: TrainOptions, settings: Config) -> None:
    """Trains on a split."""
    from ssd_tf.training import strategies, train
    from ssd_tf.training.validation import Validation
    from ssd_tf.weights import start as starts

    strategy = strategies.choose_strategy()
    names, split = settings.class_names, options.dataset_split_name
    read, num_samples = open_split(options, split, names)
    validation = None
    if name := options.validation_split_name:
        read_val, num_images = open_split(options, name, names)
        validation = Validation(read_val(None), num_images, name)
    settings, start = starts.initial_weights(
        settings, options.run.train_dir, options.start
    )
    train.train(
        settings,
        options.run.train_dir,
        read,
        num_samples,
        strategy,
        start,
        validation,
        options.run.confirm_changes,
    )
    command.say(
        f"trained: {options.run.train_dir}; next: python eval_ssd.py "
        f"--dataset_dir={options.dataset_dir} --dataset_split_name=SPLIT "
        f"--checkpoint_path={options.run.train_dir}"
    )


def overfit_on(options: TrainOptions, settings: Config) -> None:
    """Overfits the first batch of a split."""
    from ssd_tf.training import overfit

    read, num_samples = open_split(
        options, options.dataset_split_name, settings.class_names
    )
    overfit.overfit(settings, read(None), num_samples)


def main(options: TrainOptions) -> None:
    """Trains; without any flag, runs the demo."""
    if not options.given:
        command.load_tensorflow()
        from ssd_tf import demo

        demo.default_run()
        return
    require(options, "dataset_dir")
    if not options.run.overfit_batch:
        require(options.run, "train_dir")
        training_options.check_used(options)
    from ssd_tf.datasets import catalog

    for line in training_options.remarks(options):
        command.say(line)
    names = tuple(catalog.class_names(options.dataset_dir))
    params = dataclasses.replace(options.net.params, num_classes=len(names) + 1)
    command.load_tensorflow()
    from ssd_tf.datasets import records
    from ssd_tf.nets import applications

    if options.net.trunk:
        params = applications.with_trunk(params, options.net.trunk)
    settings = Config(params, names, options.training)
    with records.explained_errors(
        options.dataset_dir,
        options.dataset_split_name,
        options.validation_split_name,
    ):
        run_on = overfit_on if options.run.overfit_batch else train_on
        run_on(options, settings)


def run() -> None:
    """Runs the command `ssd-train`."""
    command.run(main, TrainOptions, __doc__)


if __name__ == "__main__":
    run()
