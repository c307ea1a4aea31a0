"""The batches of a training run, and the images in each."""

from typing import Any

from ssd_tf.input_pipeline import batches as input_pipeline
from ssd_tf.training.run import Run


class TrainingBatches:
    """The batches of a run from its next step on."""

    def __init__(self, run: Run, read: input_pipeline.Reader):
        """Starts the input pipeline.

        Args:
          run: the run, at the step after which the batches begin.
          read: reader of the records, see `input_pipeline.make_for_train`.
        """
        self._settings = run.settings
        self._read = read
        first_step = int(run.step)
        training = run.settings.training

        def batches(context):
            self._worker = context.input_pipeline_id
            self._workers = context.num_input_pipelines
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
            return batches.map(_without_source_id)

        self._iterator = iter(
            run.strategy.distribute_datasets_from_function(batches)
        )

    def batch_of(self, step: int) -> Any:
        """Returns the (distributed) batch of the next step, which is `step`.

        Raises:
          UserError: an image, box or label of the batch is invalid.
        """
        with input_pipeline.explained_errors(
            lambda: self._records_of(step),
            self._settings.params.num_classes,
            f"the data of step {step} cannot be trained on",
        ):
            return next(self._iterator)

    def source_ids(self, step: int) -> list[str]:
        """Returns the images of this process's part of a step's batch."""
        ids = [r["source_id"].decode() for r in self._records_of(step)]
        part = len(ids) // self._workers
        return ids[self._worker * part : (self._worker + 1) * part]

    def _records_of(self, step):
        training = self._settings.training
        return input_pipeline.records_of_step(
            self._read,
            self._settings.num_samples,
            training.batch_size,
            training.seed,
            step,
        )


def _without_source_id(batch):
    """Leaves out the strings, which no device holds."""
    return {key: x for key, x in batch.items() if key != "source_id"}
