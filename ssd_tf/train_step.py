"""One compiled step: encode boxes, forward, loss, backward, update.

The same on one device and on many replicas. Knows no data and no files.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ssd_tf import encoder, losses, optimizers
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.recipe import TrainParams


def make_encode(
    net: SSDNet, match_threshold: float, force_match: bool = True
) -> Callable[[dict[str, tf.Tensor]], encoder.Targets]:
    """The compiled function from a batch's boxes to its targets."""

    # XLA fuses the matching of all boxes with all anchors into a few passes,
    # on a CPU too, where compiling the convolutions as well would not pay.
    @tf.function(jit_compile=True)
    def encode(batch):
        return encoder.encode(
            batch["labels"],
            batch["boxes"],
            net.flat_anchors,
            net.params.num_classes,
            net.params.prior_scaling,
            ignored=batch["ignored"],
            force_match=force_match,
            match_threshold=match_threshold,
        )

    return encode


def make_train_step(
    net: SSDNet,
    optimizer: keras.Optimizer,
    training: TrainParams,
    strategy: tf.distribute.Strategy,
) -> Callable[[Any], dict[str, tf.Tensor]]:
    """The compiled step.

    Args:
      net: built under the strategy's scope, as is
      optimizer: already built for the net's trainable variables.
      training: loss settings and weight decay.
      strategy: where to run.

    Returns:
      A function from a (distributed) batch, see
      `input_pipeline.make_for_train`, to the loss terms of the global batch,
      float32 scalars: those of `ssd_losses`, `regularization` and their sum
      `loss`.
    """
    replicas = strategy.num_replicas_in_sync
    options = dict(vars(training.loss))
    encode = make_encode(
        net, options["match_threshold"], options.pop("force_match")
    )

    def replica_step(batch):
        image = batch["image"]
        targets = encode({k: v for k, v in batch.items() if k != "image"})
        with tf.GradientTape() as tape:
            outputs = net.model(image, training=True)
            terms = losses.ssd_losses(
                outputs["logits"],
                outputs["localisations"],
                *targets,
                **options,
            )
            decay = optimizers.weight_decay_loss(
                net.model, training.weight_decay
            )
            terms["regularization"] = decay / replicas
            terms["loss"] = tf.add_n(list(terms.values()))
        variables = net.model.trainable_variables
        gradients = tape.gradient(terms["loss"], variables)
        # Keras sums the gradients over the replicas.
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return terms

    @tf.function
    def train_step(batch):
        terms = strategy.run(replica_step, args=(batch,))
        return {
            name: strategy.reduce(tf.distribute.ReduceOp.SUM, term, axis=None)
            for name, term in terms.items()
        }

    return train_step
