"""Examines the batch of a non-finite loss that stopped a training run.

  python -m ssd_tf.replay --train_dir=T --batch=T/nonfinite_step_120.npz

runs the net with its latest checkpoint on the batch and prints the loss of
each image alone, the invalid boxes, the first non-finite layer, and the layers
with the largest gradients. The checkpoint is from before the step: if all is
finite with it, the steps between have spoiled the weights, not this batch
alone.
"""

import dataclasses
from typing import TYPE_CHECKING

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.command.settings import choices, require, setting
from ssd_tf.config.training import LossParams, TrainParams

if TYPE_CHECKING:
    import numpy as np

    from ssd_tf.config.run import Config
    from ssd_tf.nets.ssd import SSDNet

# Number of layers in the table of gradients.
_SHOWN = 10
Batch = dict[str, "np.ndarray"]


@dataclasses.dataclass(frozen=True)
class ReplayOptions:
    """The settings of `python -m ssd_tf.replay`."""

    train_dir: str | None = setting(None, "Folder of the run.", "replay")
    batch: str | None = setting(
        None, "File nonfinite_step_K.npz that the run has saved.", "replay"
    )
    precision: str | None = setting(
        None,
        "Keras dtype policy to compute in [the run's].",
        "replay",
        choices=choices(TrainParams, "precision"),
    )


def load_net(
    train_dir: str, settings: "Config", precision: str
) -> tuple["SSDNet", str]:
    """Rebuilds the net of a run, without any averaging of its weights.

    Args:
      train_dir: folder of the run.
      settings: configuration of the run.
      precision: Keras dtype policy to compute in.

    Returns:
      The net, and in words the source of its weights: the latest checkpoint,
      or the seed if nothing has been saved.
    """
    import keras
    import tensorflow as tf

    from ssd_tf.nets import checkpoint
    from ssd_tf.nets.ssd import SSDNet

    keras.utils.set_random_seed(settings.training.seed)
    net = SSDNet(settings.params, precision)
    latest = tf.train.latest_checkpoint(train_dir)
    if latest is None:
        return net, (
            "initial ones, for nothing was saved yet; without those of "
            "--checkpoint_path or --backbone_weights"
        )
    checkpoint.restore_weights(net, latest, use_average=False)
    return net, latest


def make_losses(net: "SSDNet", loss: LossParams):
    """Makes a function from a batch to its loss terms, as the run has them.

    The regularization, which no batch changes, is left out. The function's
    second argument is Keras's `training`, for batch norm.
    """
    from ssd_tf.multibox import losses
    from ssd_tf.training import step

    options = dict(vars(loss))
    encode = step.make_encode(
        net, loss.match_threshold, options.pop("force_match")
    )

    def losses_of(batch, training):
        boxes = {key: batch[key] for key in ("boxes", "labels", "ignored")}
        outputs = net.model(batch["image"], training=training)
        return losses.ssd_losses(
            outputs["logits"],
            outputs["localisations"],
            *encode(boxes),
            **options,
        )

    return losses_of


def losses_by_image(losses_of, batch: Batch) -> list[dict[str, float]]:
    """Computes the loss terms of each image alone, and their sum `loss`.

    Batch norm is that of inference, because a batch of one has no useful
    variance.
    """
    rows = []
    for row in range(len(batch["image"])):
        one = {key: batch[key][row : row + 1] for key in batch}
        terms = losses_of(one, training=False)
        values = {name: float(term) for name, term in terms.items()}
        rows.append({"loss": sum(values.values()), **values})
    return rows


def gradient_norms(
    net: "SSDNet", losses_of, batch: Batch
) -> list[tuple[str, float]]:
    """Computes the norm of the batch's gradient in each layer, largest first.

    Non-finite norms come before all others.
    """
    import tensorflow as tf

    with tf.GradientTape() as tape:
        terms = losses_of(batch, training=True)
        loss = sum(terms.values())
    variables = net.model.trainable_variables
    by_layer = {}
    for variable, gradient in zip(
        variables, tape.gradient(loss, variables), strict=True
    ):
        if gradient is not None:
            layer = variable.path.rpartition("/")[0]
            by_layer.setdefault(layer, []).append(gradient)
    norms = {
        layer: float(tf.linalg.global_norm(gradients))
        for layer, gradients in by_layer.items()
    }
    # NaN, which is unequal to itself, sorts first.
    return sorted(norms.items(), key=lambda x: (x[1] == x[1], -x[1]))


def first_bad_layer(net: "SSDNet", images: "np.ndarray") -> str | None:
    """Finds the first layer, in the order of the graph, that is non-finite.

    Output and weights both count: a ReLU may turn a bias of NaN into 0, and
    the gradient has it again.

    Args:
      net: the net; batch norm is that of training.
      images: float32 [B, H, W, 3], whitened.

    Returns:
      The layer's name, and what of it is non-finite; None if all is finite.
    """
    import keras
    import tensorflow as tf

    def all_finite(values):
        checks = [tf.math.is_finite(each) for each in tf.nest.flatten(values)]
        return tf.reduce_all([tf.reduce_all(check) for check in checks])

    layers = net.model.operations
    outputs = {layer.name: layer.output for layer in layers}
    probe = keras.Model(net.model.inputs, outputs)

    # A graph frees each output as soon as it has been checked.
    @tf.function
    def are_finite(images):
        values = probe(images, training=True)
        return {name: all_finite(values[name]) for name in outputs}

    finite = are_finite(images)
    for layer in layers:
        weights = getattr(layer, "weights", [])
        bad = [each.name for each in weights if not all_finite(each.value)]
        bad += [] if finite[layer.name] else ["output"]
        if bad:
            return f"{layer.name} ({', '.join(bad)})"
    return None


def bad_boxes(batch: Batch, num_classes: int) -> list[tuple[str, str, str]]:
    """Lists the boxes that cannot be trained on: image, box and reason.

    Args:
      batch: batch of `nonfinite.load`; boxes of label 0 are padding.
      num_classes: number of classes, with the background.
    """
    from ssd_tf.datasets import record_check

    found = []
    for source_id, boxes, labels in zip(
        batch["source_id"], batch["boxes"], batch["labels"], strict=True
    ):
        reasons = record_check.why_useless(boxes)
        for box, label, reason in zip(boxes, labels, reasons, strict=True):
            if not 0 <= label < num_classes:
                reason = f"label {label} without a class"
            if label and reason:
                sides = ", ".join(f"{side:.4g}" for side in box)
                found.append((str(source_id), sides, reason))
    return found


def check_fits(batch: Batch, settings: "Config", name: str) -> None:
    """Checks that the images of a batch have the size that the net takes.

    Raises:
      UserError: they are of another size.
    """
    height, width = settings.params.img_shape
    if batch["image"].shape[1:] != (height, width, 3):
        size = "x".join(map(str, batch["image"].shape[1:3]))
        raise UserError(
            f"{name}: images of {size} pixels, but the net of --train_dir "
            f"takes {height}x{width}; name the run that left the batch"
        )


def _show(batch, by_image, boxes, layer, norms):
    numbers = (batch["labels"] != 0).sum(axis=1)
    rows = [
        [source_id, number, *(f"{value:.4g}" for value in terms.values())]
        for source_id, number, terms in zip(
            batch["source_id"], numbers, by_image, strict=True
        )
    ]
    command.print_table(
        "the loss of every image by itself",
        ["image", "boxes", *by_image[0]],
        rows,
    )
    if boxes:
        columns = ["image", "ymin, xmin, ymax, xmax", "why"]
        command.print_table("boxes that match nothing", columns, boxes)
    else:
        command.say("all boxes are good")
    command.say(f"first layer that is not finite: {layer or 'none'}")
    command.print_table(
        f"gradient of the batch's loss, the {_SHOWN} largest of {len(norms)}",
        ["layer", "norm"],
        [[name, f"{norm:.4g}"] for name, norm in norms[:_SHOWN]],
    )


def main(options: ReplayOptions) -> None:
    """Examines the batch and prints what it finds."""
    require(options, "train_dir", "batch")
    from ssd_tf.config import run as config
    from ssd_tf.training import nonfinite

    # The batch, and the net as it was before the step.
    settings = config.load(options.train_dir)
    batch = nonfinite.load(options.batch)
    check_fits(batch, settings, options.batch)
    command.load_tensorflow()
    precision = options.precision or settings.training.precision
    net, weights = load_net(options.train_dir, settings, precision)
    command.say(f"weights: {weights}; computed in {precision}")
    losses_of = make_losses(net, settings.training.loss)
    _show(
        batch,
        # First, for batch norm's averages change with every batch of training.
        losses_by_image(losses_of, batch),
        bad_boxes(batch, net.params.num_classes),
        first_bad_layer(net, batch["image"]),
        gradient_norms(net, losses_of, batch),
    )


def run() -> None:
    """Runs the command `ssd-replay`."""
    command.run(main, ReplayOptions, __doc__)


if __name__ == "__main__":
    run()
