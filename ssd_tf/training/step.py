"""The compiled training step: encode boxes, forward, loss, backward, update.

One code for one device and for many replicas.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from ssd_tf.command import UserError
from ssd_tf.config import check_choice
from ssd_tf.config.training import TrainParams
from ssd_tf.multibox import encoder, losses
from ssd_tf.nets.averages import WeightAverage
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.training import optimizers

Terms = dict[str, tf.Tensor]


@contextlib.contextmanager
def sums_in_order() -> Iterator[None]:
    """Makes repeated steps give the same bits inside, on CPUs.

    TensorFlow's graph optimizer merges several sums into one `AddN`, which
    adds in the order in which memory happens to be free.
    """
    options = tf.config.optimizer
    before = options.get_experimental_options()
    name = "arithmetic_optimization"
    options.set_experimental_options({name: False})
    try:
        yield
    finally:
        options.set_experimental_options({name: before.get(name, True)})


def encode_batch(
    net: SSDNet,
    batch: Mapping[str, tf.Tensor],
    match_threshold: float,
    force_match: bool = True,
) -> encoder.Targets:
    """Encodes `labels`, `boxes` and `ignored` of a batch as targets."""
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


def make_encode(
    net: SSDNet, match_threshold: float, force_match: bool = True
) -> Callable[[Mapping[str, tf.Tensor]], encoder.Targets]:
    """Compiles `encode_batch` to a function of the batch alone."""

    # XLA fuses the matching of all boxes with all anchors into a few passes,
    # on a CPU too, where compiling the convolutions as well would not pay.
    @tf.function(jit_compile=True)
    def encode(batch):
        return encode_batch(net, batch, match_threshold, force_match)

    return encode


def make_train_step(
    net: SSDNet,
    optimizer: keras.Optimizer,
    training: TrainParams,
    strategy: tf.distribute.Strategy,
    average: WeightAverage | None = None,
) -> Callable[[Any], Terms]:
    """Makes the compiled step.

    Args:
      net: net built under the strategy's scope.
      optimizer: optimizer of `optimizers.make_optimizer`, built under the
        strategy's scope for the net's trainable variables.
      training: the recipe.
      strategy: devices that share a batch.
      average: average of the weights, updated at the end of each step.

    Returns:
      A function from a (distributed) batch, see
      `input_pipeline.make_for_train`, to float32 scalars of the global batch:
      the terms of `ssd_losses`, `regularization`, their sum `loss`, and
      `gradient_norm`, of all gradients before they are clipped. In
      mixed_float16 also `loss_scale`; the norm of a step that was skipped
      because gradients overflowed is non-finite.

    Raises:
      UserError: settings exclude each other.
    """
    _check(training, strategy.num_replicas_in_sync)
    encode = make_encode(
        net, training.loss.match_threshold, training.loss.force_match
    )
    learn = _make_learn(net, optimizer, training, strategy)

    def replica_step(batch):
        # Match the boxes with the anchors: class and offsets to learn for each.
        targets = encode({k: v for k, v in batch.items() if k != "image"})
        # Forward, loss, gradients of this replica's part; one shared update.
        return learn(batch["image"], targets)

    @tf.function
    def train_step(batch):
        # Take the step on every replica.
        sums, of_step = strategy.run(replica_step, args=(batch,))
        # Move the averaged weights towards the new ones.
        if average:
            average.update()
        # Add up the replicas' shares of the loss.
        terms = {
            name: strategy.reduce(tf.distribute.ReduceOp.SUM, term, axis=None)
            for name, term in sums.items()
        }
        for name, value in of_step.items():
            # Equal on all replicas.
            terms[name] = strategy.experimental_local_results(value)[0]
        return terms

    return train_step


def _check(training: TrainParams, replicas: int) -> None:
    """Raises UserError for settings that exclude each other."""
    check_choice(TrainParams, "jit_compile", training.jit_compile)
    if training.jit_compile == "on" and replicas > 1:
        raise UserError(
            f"--jit_compile=on: a step over {replicas} devices cannot be "
            "compiled; choose auto or off"
        )
    parts = training.gradient_accumulation_steps
    if parts > 1 and training.loss.mining == "batch":
        raise UserError(
            f"--gradient_accumulation_steps={parts}: --mining=batch ranks the "
            "whole batch at once; choose --mining=image"
        )


def is_compiled(training: TrainParams, replicas: int) -> bool:
    """Tells whether XLA compiles all that comes after the encoder."""
    if training.jit_compile != "auto":
        return training.jit_compile == "on"
    # On CPUs XLA's convolutions are several times slower than TensorFlow's.
    # Replicas exchange their sums in the middle of a step.
    return replicas == 1 and bool(tf.config.list_logical_devices("GPU"))


def _make_learn(
    net: SSDNet,
    optimizer: keras.Optimizer,
    training: TrainParams,
    strategy: tf.distribute.Strategy,
) -> Callable[[tf.Tensor, encoder.Targets], tuple[Terms, Terms]]:
    """Makes the part of a replica's step that follows the encoder.

    Returns:
      A function from images and targets to the replica's share of the terms,
      and to the scalars that are equal on all replicas.
    """
    replicas = strategy.num_replicas_in_sync
    options = dict(vars(training.loss))
    del options["force_match"]
    learn_part = _make_learn_part(net, optimizer, options)
    of_divisor = {
        name: options[name]
        for name in ("match_threshold", "mining", "normalizer")
    }

    def learn(image, targets):
        # Count positives (or images) of all replicas, to divide the loss by.
        divisor = losses.loss_divisor(targets.gscores, **of_divisor)
        # Forward and backward, part by part if gradients are accumulated.
        terms, gradients = _sum_over_parts(
            functools.partial(learn_part, divisor),
            (image, *targets),
            training.gradient_accumulation_steps,
        )
        # Weight decay, as a term of the loss and of the gradients.
        decay, more = _weight_decay(net, optimizer, training, replicas)
        terms["regularization"] = decay
        terms["loss"] = sum(terms.values())
        gradients = [
            gradient if of_decay is None else gradient + of_decay
            for gradient, of_decay in zip(gradients, more, strict=True)
        ]
        # All replicas get the sum of the gradients.
        if replicas > 1:
            gradients = tf.distribute.get_replica_context().all_reduce(
                tf.distribute.ReduceOp.SUM, gradients
            )
        # Clip by the global norm, and update the variables.
        return terms, _apply(
            optimizer,
            gradients,
            net.model.trainable_variables,
            training.clip_gradient_norm,
        )

    if is_compiled(training, replicas):
        return tf.function(learn, jit_compile=True)
    return learn


def _make_learn_part(
    net: SSDNet, optimizer: keras.Optimizer, options: dict[str, Any]
) -> Callable[..., tuple[Terms, list[tf.Tensor]]]:
    """Makes a function from a part of a batch to its terms and gradients.

    The gradients are those of the scaled loss; `options` are keyword arguments
    of `ssd_losses`.
    """

    def learn_part(divisor, image, *targets):
        outputs = net.model(image, training=True)
        terms = losses.ssd_losses(
            outputs["logits"],
            outputs["localisations"],
            *targets,
            **options,
            divisor=divisor,
        )
        # Not a tape: where three layers read one tensor, it adds the gradients
        # in the order in which memory happens to be free, and no two runs
        # would end with the same bits. A tree adds two at a time.
        gradients = tf.gradients(
            optimizer.scale_loss(sum(terms.values())),
            [variable.value for variable in net.model.trainable_variables],
            aggregation_method=tf.AggregationMethod.EXPERIMENTAL_TREE,
        )
        return terms, gradients

    return learn_part


def _weight_decay(
    net: SSDNet,
    optimizer: keras.Optimizer,
    training: TrainParams,
    replicas: int,
) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
    """Computes a replica's share of the decay's loss, and scaled gradients.

    Once a step, and not once per part: without a dependence on the batch, the
    gradients of all parts would be held in memory at once.
    """
    with tf.GradientTape() as tape:
        decay = optimizers.weight_decay_loss(
            net.model, optimizers.l2_of(training)
        )
        decay /= replicas
        scaled = optimizer.scale_loss(decay)
    return decay, tape.gradient(scaled, net.model.trainable_variables)


def _sum_over_parts(
    function: Callable, batch: tuple[tf.Tensor, ...], parts: int
) -> Any:
    """Sums a function over `parts` equal parts of a batch."""
    total = None
    for image, *rest in zip(*(tf.split(x, parts) for x in batch), strict=True):
        # A part waits for the one before, and reuses its memory.
        with tf.control_dependencies(tf.nest.flatten(total or [])):
            image = tf.identity(image)
        result = function(image, *rest)
        total = (
            tf.nest.map_structure(tf.add, total, result) if total else result
        )
    return total


def _apply(
    optimizer: keras.Optimizer,
    gradients: list[tf.Tensor],
    variables: list[keras.Variable],
    clip_norm: float,
) -> Terms:
    """Clips and applies gradients of the scaled loss; returns their norm."""
    scale = optimizers.loss_scale(optimizer)
    scaled_norm = tf.linalg.global_norm(gradients)
    of_step = {"gradient_norm": scaled_norm / scale}
    if tf.is_tensor(scale):
        of_step["loss_scale"] = scale
    if clip_norm:
        gradients, _ = tf.clip_by_global_norm(
            gradients, clip_norm * scale, use_norm=scaled_norm
        )
    optimizer.apply(gradients, variables)
    return of_step
