"""The multibox loss with hard negative mining.

Knows targets and outputs on one concatenated anchor axis; no model and no
optimiser. Per-anchor losses are element-wise functions; which anchors count
(mining) and what the sum is divided by is decided in `ssd_losses`, visibly.
Everything has static shapes and compiles with `jit_compile=True`.
"""

import tensorflow as tf

from ssd_tf.config import check_choice
from ssd_tf.config.training import LossParams
from ssd_tf.multibox.anchor_axis import Layers, flatten_layers


def abs_smooth(x: tf.Tensor) -> tf.Tensor:
    """Smooth L1: 0.5 x^2 for |x| <= 1, |x| - 0.5 beyond (Fast R-CNN)."""
    size = tf.abs(x)
    return 0.5 * ((size - 1) * tf.minimum(size, 1) + size)


def cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, label_smoothing: float = 0.0
) -> tf.Tensor:
    """Softmax cross entropy of each anchor.

    Args:
      logits: float32 `[..., C]`.
      labels: integer `[...]`.
      label_smoothing: share of the target spread evenly over all classes.

    Returns:
      float32 `[...]`.
    """
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if label_smoothing:
        uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
        loss += label_smoothing * (uniform - loss)
    return loss


def mine_per_image(
    difficulty: tf.Tensor, candidates: tf.Tensor, counts: tf.Tensor
) -> tf.Tensor:
    """Chooses the hardest candidates of every image, exactly as many as told.

    Args:
      difficulty: float32 `[B, A]`, higher is harder.
      candidates: bool `[B, A]`.
      counts: int32 `[B]`; more than there are means all.

    Returns:
      bool `[B, A]`; of equal candidates the first are taken.
    """
    counts = tf.minimum(
        counts, tf.reduce_sum(tf.cast(candidates, tf.int32), axis=1)
    )
    value = tf.where(candidates, difficulty, -1.0)
    # k is all anchors, so that the shape is static whatever the counts.
    ranked = tf.math.top_k(value, k=tf.shape(value)[1]).values
    last = tf.gather(ranked, tf.maximum(counts - 1, 0), batch_dims=1)[:, None]
    above = candidates & (value > last)
    ties = candidates & (value == last)
    room = counts - tf.reduce_sum(tf.cast(above, tf.int32), axis=1)
    in_room = tf.cumsum(tf.cast(ties, tf.int32), axis=1) <= room[:, None]
    return (above | (ties & in_room)) & (counts[:, None] > 0)


def mine_over_batch(
    background: tf.Tensor, candidates: tf.Tensor, count: tf.Tensor
) -> tf.Tensor:
    """The port's mining: one ranking over all images of the batch.

    The `count`-th smallest background probability is a strict upper bound, so
    that this anchor and its ties are left out (defect kept for parity).

    Args:
      background: float32 `[B, A]`, probability of class 0.
      candidates: bool `[B, A]`.
      count: int32 scalar.

    Returns:
      bool `[B, A]`.
    """
    count = tf.minimum(count, tf.reduce_sum(tf.cast(candidates, tf.int32)))
    value = tf.where(candidates, background, 1.0)
    ranked = -tf.math.top_k(
        -tf.reshape(value, [-1]), k=tf.size(value), sorted=True
    ).values
    bound = ranked[tf.maximum(count - 1, 0)]
    return candidates & (value < bound) & (count > 0)


def ssd_losses(
    logits: Layers,
    localisations: Layers,
    gclasses: Layers,
    glocalisations: Layers,
    gscores: Layers,
    match_threshold: float = 0.5,
    negative_ratio: float = 3.0,
    alpha: float = 1.0,
    label_smoothing: float = 0.0,
    mining: str = "image",
    normalizer: str = "positives",
    min_negatives: int = 3,
    divisor: tf.Tensor | None = None,
) -> dict[str, tf.Tensor]:
    """Confidence and localisation loss of a batch (paper, equations 1 to 3).

    Inside `strategy.run` the divisor is summed over the replicas: the sum of
    the replicas' losses, and of their gradients, is that of the whole batch.

    Args:
      logits: float32, list of `[B, h, w, a, C]` or one `[B, A, C]`; so are
      localisations: float32 `[..., 4]`,
      gclasses: integer,
      glocalisations: float32 `[..., 4]`, and
      gscores: float32: IoU, 1 for forced matches, -1 for ignored anchors.
      match_threshold: score from which (`mining="image"`, as Caffe) or beyond
        which (`mining="batch"`, as the port) an anchor is positive.
      negative_ratio: mined negatives per positive.
      alpha: weight of the localisation loss.
      label_smoothing: share of the class target spread over all classes.
      mining: "image": in every image the `negative_ratio * positives`
        negatives of highest cross entropy, at least `min_negatives`, at most
        all; "batch": the port's, over the whole batch.
      normalizer: "positives": divide by the number of positives in the global
        batch, at least 1 (paper, Caffe's VALID); "batch_size": the port's.
      min_negatives: for images with few or no positives; 0 is Caffe's.
      divisor: `loss_divisor` of the whole batch, where this is a part of it.

    Returns:
      float32 scalars `cross_entropy_pos`, `cross_entropy_neg` and
      `localization`; finite for finite inputs.

    Raises:
      ValueError: unknown `mining` or `normalizer`.
    """
    check_choice(LossParams, "mining", mining)
    check_choice(LossParams, "normalizer", normalizer)
    logits = tf.cast(flatten_layers(logits, 1), tf.float32)
    localisations = tf.cast(flatten_layers(localisations, 1), tf.float32)
    gclasses = flatten_layers(gclasses, 0)
    glocalisations = flatten_layers(glocalisations, 1)
    gscores = flatten_layers(gscores, 0)

    positives = positive_anchors(gscores, match_threshold, mining)
    candidates = ~positives & (gscores > -0.5)
    # Of every anchor that is not positive the label is 0, so that one cross
    # entropy is the loss of both kinds, and how hard a negative is.
    class_loss = cross_entropy(
        logits, tf.where(positives, gclasses, 0), label_smoothing
    )
    negatives = _mine(
        logits,
        tf.stop_gradient(class_loss),
        positives,
        candidates,
        negative_ratio,
        mining,
        min_negatives,
    )
    box_loss = tf.reduce_sum(
        abs_smooth(localisations - glocalisations), axis=-1
    )
    if divisor is None:
        divisor = loss_divisor(gscores, match_threshold, mining, normalizer)
    return {
        "cross_entropy_pos": _masked_sum(class_loss, positives) / divisor,
        "cross_entropy_neg": _masked_sum(class_loss, negatives) / divisor,
        "localization": alpha * _masked_sum(box_loss, positives) / divisor,
    }


def loss_divisor(
    gscores: Layers,
    match_threshold: float = 0.5,
    mining: str = "image",
    normalizer: str = "positives",
) -> tf.Tensor:
    """What the losses of a batch are divided by; see `ssd_losses`.

    Args:
      gscores: float32, list of `[B, h, w, a]` or one `[B, A]`.
      match_threshold, mining, normalizer: as in `ssd_losses`.

    Returns:
      float32 scalar, at least 1, of all replicas' batches together.
    """
    gscores = flatten_layers(gscores, 0)
    if normalizer == "positives":
        positives = positive_anchors(gscores, match_threshold, mining)
        count = tf.reduce_sum(tf.cast(positives, tf.float32))
    else:
        count = tf.cast(tf.shape(gscores)[0], tf.float32)
    return tf.maximum(_sum_over_replicas(count), 1.0)


def positive_anchors(
    gscores: tf.Tensor, match_threshold: float, mining: str
) -> tf.Tensor:
    """Which anchors learn an object; arguments as in `ssd_losses`.

    Args:
      gscores: float32 [B, A].

    Returns:
      bool [B, A].
    """
    if mining == "image":
        return gscores >= match_threshold
    return gscores > match_threshold


def _mine(
    logits,
    class_loss,
    positives,
    candidates,
    negative_ratio,
    mining,
    min_negatives,
):
    """bool [B, A]: the negatives that count, by either mining."""
    per_image = tf.reduce_sum(tf.cast(positives, tf.float32), axis=1)
    if mining == "image":
        wanted = tf.cast(negative_ratio * per_image, tf.int32)
        wanted = tf.maximum(wanted, min_negatives)
        return mine_per_image(class_loss, candidates, wanted)
    background = tf.stop_gradient(tf.nn.softmax(logits)[..., 0])
    wanted = tf.cast(negative_ratio * tf.reduce_sum(per_image), tf.int32)
    wanted += tf.shape(logits)[0]
    return mine_over_batch(background, candidates, wanted)


def _masked_sum(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.where(mask, values, 0.0))


def _sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
