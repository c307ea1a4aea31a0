"""Flags of train_ssd.py that would do nothing beside the others."""

from absl import flags

from ssd_tf.command import UserError
from ssd_tf.config.flag_tables import HELP, NAMES
from ssd_tf.config.training import LossParams

# What --overfit_batch heeds.
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
    *HELP[LossParams],
}


def check_used(flag_values: flags.FlagValues) -> None:
    """Refuses flags of a training run that would do nothing.

    Raises:
      UserError: there is one.
    """
    if flag_values.validation_split_name:
        return
    for name in ("early_stopping_patience", "best_metric"):
        if flag_values[name].present:
            raise UserError(
                f"--{name}: nothing is evaluated without "
                "--validation_split_name"
            )


def remarks(flag_values: flags.FlagValues) -> list[str]:
    """A line for what the flags say and the run will not do."""
    if flag_values.overfit_batch:
        left_out = [f"--{name}" for name in _left_out(flag_values)]
        return [
            "--overfit_batch has its own recipe and starts from random "
            f"weights; left out: {', '.join(left_out)}"
        ] * bool(left_out)
    warmup, steps = flag_values.warmup_steps, flag_values.max_number_of_steps
    return [
        f"--warmup_steps={warmup} of --max_number_of_steps={steps}: the run "
        "never reaches its --learning_rate"
    ] * (warmup >= steps)


def _left_out(flag_values):
    """The flags on the command line that --overfit_batch does not heed."""
    heeded = {NAMES.get(field, field) for field in _OF_OVERFITTING}
    return [
        name
        for name in flag_values
        if flag_values[name].present and name not in heeded
    ]
