"""Finds options of train_ssd.py that have no effect beside the others."""

from ssd_tf.command.errors import UserError
from ssd_tf.command.settings import fields
from ssd_tf.config.training import LossParams, TrainOptions

# The options that --overfit_batch follows.
_OF_OVERFITTING = {
    "batch_size",
    "dataset_dir",
    "dataset_split_name",
    "ignore_difficult",
    "image_size",
    "jit_compile",
    "model_name",
    "overfit_batch",
    "precision",
    "seed",
    "trunk",
    "unreadable_shards",
    *(field.flag for field in fields(LossParams)),
}


def check_used(options: TrainOptions) -> None:
    """Checks that the given options have an effect.

    Raises:
      UserError: one has none.
    """
    if options.validation_split_name:
        return
    for name in ("early_stopping_patience", "best_metric"):
        if name in options.given:
            raise UserError(
                f"--{name}: nothing is evaluated without "
                "--validation_split_name"
            )


def remarks(options: TrainOptions) -> list[str]:
    """Returns a line for each option that the run does not follow."""
    if options.run.overfit_batch:
        left_out = sorted(options.given - _OF_OVERFITTING)
        if not left_out:
            return []
        names = ", ".join(f"--{name}" for name in left_out)
        return [
            "--overfit_batch has its own recipe and starts from random "
            f"weights; left out: {names}"
        ]
    training = options.training
    if training.warmup_steps < training.max_number_of_steps:
        return []
    return [
        f"--warmup_steps={training.warmup_steps} of --max_number_of_steps="
        f"{training.max_number_of_steps}: the run never reaches its "
        "--learning_rate"
    ]
