"""Checks that the net can overfit a single batch.

Reading, encoding, loss, gradients, batch norm, detection and metrics are those
of a real run; only the recipe is one that learns fast and varies nothing. A
net that cannot overfit one batch cannot learn a data set.
"""

import dataclasses
import math
import time

import keras
import tensorflow as tf

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.config.run import Config
from ssd_tf.config.training import AUGMENTATIONS, TrainParams
from ssd_tf.evaluation import evaluate
from ssd_tf.input_pipeline import batches as input_pipeline
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.training import optimizers
from ssd_tf.training import step as train_step

MAX_IMAGES = 8
MAX_STEPS = 1000
EVAL_INTERVAL = 25
# The last loss must be below this share of the first one.
LOSS_SHARE = 0.1
# All three count a box as detected from an IoU of 0.5 on.
AP_KEYS = ("AP_VOC07/mAP", "AP_VOC12/mAP", "COCO/AP50")
# COCO's precision is tp / (tp + fp + 2.2e-16).
PERFECT = 1.0 - 1e-6
REASONS = (
    "likely reasons: boxes of one class that overlap so far that "
    "suppression takes one of them, boxes smaller than the cells of the "
    "first layer, wrong boxes; try another --seed or a smaller --batch_size"
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The result of the check."""

    first_loss: float
    loss: float  # of the last step, without regularisation
    metrics: dict[str, float | None]  # of `AP_KEYS`
    steps: int
    seconds: float

    @property
    def passed(self) -> bool:
        """True if the loss fell far enough and every box is detected."""
        perfect = all((ap or 0.0) > PERFECT for ap in self.metrics.values())
        return perfect and self.loss < LOSS_SHARE * self.first_loss


def recipe_of(training: TrainParams) -> TrainParams:
    """Returns the recipe of the check, with a run's loss and precision."""
    return dataclasses.replace(
        training,
        batch_size=min(training.batch_size, MAX_IMAGES),
        max_number_of_steps=MAX_STEPS,
        optimizer="adam",
        opt_epsilon=1e-7,
        bias_learning_rate_multiplier=1.0,
        # Without it the loss of a random VGG, which has no batch norm, jumps.
        clip_gradient_norm=10.0,
        gradient_accumulation_steps=1,
        ema_decay=0.0,
        learning_rate=1e-3,
        learning_rate_decay_type="fixed",
        warmup_steps=50,
        weight_decay=0.0,
        augmentation=AUGMENTATIONS["none"],
        trainable_scopes=(),
    )


def overfit(
    settings: Config,
    records: tf.data.Dataset,
    num_samples: int,
    max_steps: int = MAX_STEPS,
) -> Verdict:
    """Trains a net from random values on the first images of a data set.

    It ends as soon as the net has learned them.

    Args:
      settings: net and class names, and from the recipe loss, precision, seed
        and the batch size up to `MAX_IMAGES`.
      records: parsed records, in a fixed order.
      num_samples: number of images in the data set.
      max_steps: number of steps after which the check has failed.

    Returns:
      The verdict of a net that has passed.

    Raises:
      UserError: the net has not passed, or the images have no boxes.
    """
    training = recipe_of(settings.training)
    training = dataclasses.replace(
        training, batch_size=min(training.batch_size, num_samples)
    )
    settings = dataclasses.replace(settings, training=training)
    records = records.take(training.batch_size)
    keras.utils.set_random_seed(training.seed)
    net = SSDNet(settings.params, training.precision)
    verdict = _learn(net, settings, records, max_steps)
    print_verdict(verdict)
    if not verdict.passed:
        raise UserError(f"the net did not overfit its batch; {REASONS}")
    return verdict


def _learn(net, settings, records, max_steps) -> Verdict:
    """Takes steps on the batch and evaluates it now and then."""
    take_step, batch = _make_step(net, settings.training, records)
    ap_of_batch = _make_evaluation(net, settings, records)
    metrics = dict.fromkeys(AP_KEYS)
    first_loss = None
    started = time.monotonic()
    with command.progress("overfitting", max_steps) as advance:
        for step in range(1, max_steps + 1):
            loss = float(take_step(batch)["loss"])
            if not math.isfinite(loss):
                raise UserError(
                    f"the loss of the batch is {loss} at step {step}; try "
                    "--precision=float32 or another --seed"
                )
            first_loss = loss if first_loss is None else first_loss
            # Evaluate only a net that can pass.
            if step == max_steps or (
                step % EVAL_INTERVAL == 0 and loss < LOSS_SHARE * first_loss
            ):
                metrics = ap_of_batch()
            verdict = Verdict(
                first_loss, loss, metrics, step, time.monotonic() - started
            )
            advance(units=settings.training.batch_size, text=_in_short(verdict))
            if verdict.passed:
                break
    return verdict


def _make_step(net, training, records):
    """Makes the compiled training step and the batch."""
    optimizer = optimizers.make_optimizer(training, steps_per_epoch=1.0)
    optimizer.build(net.model.trainable_variables)
    take_step = train_step.make_train_step(
        net, optimizer, training, tf.distribute.get_strategy()
    )
    batches = input_pipeline.make_for_train(
        lambda _: records,
        training.batch_size,
        net.params,
        training.batch_size,
        training.augmentation,
        training.ignore_difficult,
        training.seed,
    )
    with input_pipeline.explained_errors(
        records.as_numpy_iterator,
        net.params.num_classes,
        "the first batch cannot be trained on",
    ):
        batch = next(iter(batches))
    del batch["source_id"]  # no device holds strings
    if not tf.reduce_any((batch["labels"] > 0) & ~batch["ignored"]):
        raise UserError(
            f"no box in the first {training.batch_size} images; "
            "nothing can be learned from them"
        )
    return take_step, batch


def _make_evaluation(net, settings, records):
    """Makes a function that evaluates the batch, in inference mode."""
    batches = input_pipeline.make_for_eval(
        records,
        input_pipeline.prepare_for(net.params),
        settings.training.batch_size,
    ).cache()
    detect = evaluate.make_detect(net)

    def ap_of_batch():
        metrics = evaluate.evaluate(
            net, batches, settings.class_names, detect=detect, quiet=True
        )
        return {key: metrics[key] for key in AP_KEYS}

    return ap_of_batch


def _in_short(verdict: Verdict) -> str:
    values = verdict.metrics.values()
    aps = "/".join("-" if x is None else f"{x:.3f}" for x in values)
    return f"loss {verdict.loss:.3f}, AP {aps}"


def print_verdict(verdict: Verdict) -> None:
    """Prints the results beside the required values."""
    bound = LOSS_SHARE * verdict.first_loss
    rows = [
        ["loss, first step", f"{verdict.first_loss:.3f}", ""],
        ["loss, last step", f"{verdict.loss:.3f}", f"< {bound:.3f}"],
    ]
    for key, value in verdict.metrics.items():
        shown = "-" if value is None else f"{value:.3f}"
        rows.append([f"{key}, own batch", shown, "1.000"])
    rows.append(["steps", str(verdict.steps), ""])
    rows.append(["seconds", f"{verdict.seconds:.0f}", ""])
    title = "one batch overfitted: " + ("yes" if verdict.passed else "NO")
    command.print_table(title, ["what", "result", "required"], rows)
