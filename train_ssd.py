"""Trains an SSD object detector.

  python train_ssd.py

without flags makes the built-in data set, trains a small net on it, evaluates
it, draws its detections and exports it: about six minutes on two CPU cores,
VOC07 mAP 0.90.

  python train_ssd.py --dataset_dir=data/voc --dataset_split_name=train \\
      --train_dir=runs/voc --model_name=ssd_300_vgg \\
      --validation_split_name=val

trains on a data set that ssd_tf.datasets.convert has written. The same
command again continues from the last checkpoint. --checkpoint_path or
--backbone_weights start from weights, also from those of other classes.
"""

from ssd_tf import command
from ssd_tf.command.settings import require
from ssd_tf.config.training import TrainOptions
from ssd_tf.datasets import catalog


def main(options: TrainOptions) -> None:
    """Trains; without any flag, runs the demo."""
    if not options.given:
        command.load_tensorflow()
        from ssd_tf import demo

        demo.default_run()
        return
    require(options, "dataset_dir")
    # Without TensorFlow: a wrong folder is told at once.
    catalog.class_names(options.dataset_dir)
    if not options.run.overfit_batch:
        require(options.run, "train_dir")
    command.load_tensorflow()
    from ssd_tf.training import train

    train.run(options)
    if not options.run.overfit_batch:
        command.say(
            f"trained: {options.run.train_dir}; next: python eval_ssd.py "
            f"--dataset_dir={options.dataset_dir} --dataset_split_name=SPLIT "
            f"--checkpoint_path={options.run.train_dir}"
        )


def run() -> None:
    """Runs the command `ssd-train`."""
    command.run(main, TrainOptions, __doc__)


if __name__ == "__main__":
    run()
