"""The batches of a training run, and the images they are made of."""

from typing import Any

import tensorflow as tf

from ssd_tf import input_pipeline
from ssd_tf.command import UserError
from ssd_tf.train_run import Run

# What the input pipeline raises at a bad record, and where there are not as
# many as the manifest says.
_BAD_DATA = (tf.errors.InvalidArgumentError, tf.errors.FailedPreconditionError)


class Feed:
    """The batches of a run from its next step on."""

    def __init__(self, run: Run, read: input_pipeline.Reader):
        """`read` is that of `input_pipeline.make_for_train`."""
        self._settings = run.settings
        self._read = read
        first_step = int(run.step)
        training = run.settings.training

        def batches(context):
            batches = input_pipeline.make_for_train(
                read,
                run.settings.num_samples,
                run.settings.params,
                training.batch_size,
                training.augmentation,
                training.ignore_difficult,
                training.seed,
                first_step,
                context,
            )
            # Strings do not belong on a device.
            return batches.map(_without_source_id)

        self._iterator = iter(
            run.strategy.distribute_datasets_from_function(batches)
        )

    def batch_of(self, step: int) -> Any:
        """The batch of the next step, which is `step`.

        Raises:
          UserError: an image, box or label of it is bad.
        """
        try:
            return next(self._iterator)
        except _BAD_DATA as error:
            raise self._explained(step, error) from error

    def source_ids(self, step: int) -> list[str]:
        """The images of the global batch of a step."""
        return [r["source_id"].decode() for r in self._records_of(step)]

    def _records_of(self, step):
        training = self._settings.training
        return input_pipeline.records_of_step(
            self._read,
            self._settings.num_samples,
            training.batch_size,
            training.seed,
            step,
        )

    def _explained(self, step, error):
        try:
            reason = input_pipeline.explain_bad_record(
                self._records_of(step), self._settings.params.num_classes
            )
        except _BAD_DATA as of_records:
            error, reason = of_records, None
        reason = reason or error.message.split("\n")[0]
        return UserError(
            f"the data of step {step} cannot be trained on: {reason}; mend or "
            "remove it, convert again, and the same command goes on"
        )


def _without_source_id(batch):
    return {key: x for key, x in batch.items() if key != "source_id"}
