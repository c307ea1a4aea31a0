"""Looks into the batch that a run with a loss that is no number left behind.

  python -m ssd_tf.replay --train_dir=T --batch=T/nonfinite_step_120.npz

runs the net with its latest checkpoint on the batch and prints the loss of
every image by itself, the boxes that cannot be trained on, the first layer
that is not finite, and the layers with the largest gradients. The
checkpoint is from before the step: if all is finite with it, it was the steps
between that drove the weights away, not this batch alone.
"""

from typing import TYPE_CHECKING

from absl import flags

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.command.settings import choices
from ssd_tf.config.training import LossParams, TrainParams

if TYPE_CHECKING:
    import numpy as np

    from ssd_tf.config.run import Config
    from ssd_tf.nets.ssd import SSDNet

# Layers in the table of gradients.
_SHOWN = 10

FLAGS = flags.FlagValues()
flags.DEFINE_string("train_dir", None, "Of the run.", flag_values=FLAGS)
flags.DEFINE_string(
    "batch",
    None,
    "The nonfinite_step_K.npz that the run has left.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "precision",
    None,
    choices(TrainParams, "precision"),
    "To compute in [the run's].",
    flag_values=FLAGS,
)

Batch = dict[str, "np.ndarray"]


def load_net(
    train_dir: str, settings: "Config", precision: str
) -> tuple["SSDNet", str]:
    """The net as the run had it, without any averaging of its weights.

    Args:
      train_dir: of the run.
      settings: its configuration.
      precision: Keras dtype policy to compute in.

    Returns:
      The net, and in words where its weights are from: the latest checkpoint,
      or the seed if nothing was saved yet.
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
    """The function from a batch to its loss terms, as the run computes them.

    Its second argument says whether batch norm is that of training. Without
    the regularization, which no batch changes.
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
    """The loss terms of every image in a batch of its own, and their sum.

    Batch norm is that of evaluation: a batch of one has no variance to speak
    of.
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
    """The length of the batch's gradient in every layer, no number first."""
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
    return sorted(norms.items(), key=lambda item: _finite_order(item[1]))


def _finite_order(value):
    """Sorts NaN first, then the largest."""
    return value == value, -value


def first_bad_layer(net: "SSDNet", images: "np.ndarray") -> str | None:
    """The first layer, in the order of the graph, that is not finite.

    Both its output and its weights count: a ReLU may make 0 of a bias that is
    no number, and the gradient has it again.

    Args:
      net: the net; batch norm is that of training.
      images: float32 [B, H, W, 3], whitened.

    Returns:
      The layer's name, and which of output and weights it is; None if all of
      the net is finite.
    """
    import keras
    import tensorflow as tf

    layers = {layer.name: layer for layer in net.model.operations}
    outputs = {name: layer.output for name, layer in layers.items()}
    probe = keras.Model(net.model.inputs, outputs)

    # In a graph the outputs themselves are freed at once.
    @tf.function
    def are_finite(images):
        found = probe(images, training=True)
        return {name: _all_finite(found[name]) for name in outputs}

    finite = are_finite(images)
    for name, layer in layers.items():
        weights = getattr(layer, "weights", [])
        bad = [each.name for each in weights if not _all_finite(each.value)]
        bad += [] if finite[name] else ["output"]
        if bad:
            return f"{name} ({', '.join(bad)})"
    return None


def _all_finite(values):
    import tensorflow as tf

    checks = [
        tf.reduce_all(tf.math.is_finite(each))
        for each in tf.nest.flatten(values)
    ]
    return tf.reduce_all(checks)


def bad_boxes(batch: Batch, num_classes: int) -> list[tuple[str, str, str]]:
    """The boxes that cannot be trained on: image, box and why.

    Args:
      batch: from `guards.load`; label 0 pads.
      num_classes: with the background.
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
    """Refuses a batch of another net's size.

    Raises:
      UserError: it is.
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


def main() -> None:
    """Reads the flags and looks."""
    command.require(FLAGS, "train_dir", "batch")
    from ssd_tf.config import run as config
    from ssd_tf.training import nonfinite

    settings = config.load(FLAGS.train_dir)
    batch = nonfinite.load(FLAGS.batch)
    check_fits(batch, settings, FLAGS.batch)
    command.load_tensorflow()
    precision = FLAGS.precision or settings.training.precision
    net, weights = load_net(FLAGS.train_dir, settings, precision)
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
    """The command `ssd-replay`."""
    command.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    run()
