"""The multibox loss with hard negative mining (paper, section 2.2).

Works on targets and network outputs of the anchor axis; independent of model
and optimizer. Losses per anchor are element-wise functions. `ssd_losses`
decides which anchors count (mining) and what the sum is divided by. All shapes
are static, so that everything compiles with `jit_compile=True`.
"""

import tensorflow as tf

from ssd_tf.config import check_choice
from ssd_tf.config.training import LossParams
from ssd_tf.multibox.anchor_axis import Layers, flatten_layers


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
    """Computes confidence and localisation loss (paper, equations 1 to 3).

    L = (L_conf + alpha * L_loc) / N with N positives in the batch. L_conf is
    the softmax cross entropy over positives and mined negatives, L_loc the
    smooth L1 distance of the offsets, over positives alone.

    Inside `strategy.run` N is summed over the replicas: the sum of the
    replicas' losses, and of their gradients, is that of the global batch.

    Args:
      logits: float32, list of `[B, h, w, a, C]` or one `[B, A, C]`.
      localisations: float32, list of `[B, h, w, a, 4]` or one `[B, A, 4]`.
      gclasses: integer, list of `[B, h, w, a]` or one `[B, A]`.
      glocalisations: float32, shapes of `localisations`.
      gscores: float32, shapes of `gclasses`: IoU, 1 for forced matches, -1
        for ignored anchors.
      match_threshold: score of a positive anchor: at least this
        (`mining="image"`, as Caffe) or above it (`mining="batch"`, as the
        port).
      negative_ratio: mined negatives per positive.
      alpha: weight of the localisation loss.
      label_smoothing: share of the class target spread over all classes.
      mining: "image": in each image the `negative_ratio * positives`
        negatives of highest cross entropy, at least `min_negatives` and at
        most all; "batch": the port's, over all images together.
      normalizer: "positives": divide by the number of positives in the global
        batch, at least 1 (paper; Caffe's VALID); "batch_size": the port's.
      min_negatives: negatives of an image with few or no positives; 0 is
        Caffe's.
      divisor: `loss_divisor` of the global batch, if the arguments are a part
        of it.

    Returns:
      float32 scalars `cross_entropy_pos`, `cross_entropy_neg` and
      `localization`; finite for finite inputs.

    Raises:
      ValueError: `mining` or `normalizer` is unknown.
    """
    check_choice(LossParams, "mining", mining)
    check_choice(LossParams, "normalizer", normalizer)
    logits = tf.cast(flatten_layers(logits, 1), tf.float32)
    localisations = tf.cast(flatten_layers(localisations, 1), tf.float32)
    gclasses = flatten_layers(gclasses, 0)
    glocalisations = flatten_layers(glocalisations, 1)
    gscores = flatten_layers(gscores, 0)

    # Every anchor is a positive, a possible negative, or ignored (score -1).
    positives = positive_anchors(gscores, match_threshold, mining)
    candidates = ~positives & (gscores > -0.5)
    # With label 0 for all others, one cross entropy is the loss of positives
    # and negatives, and tells how hard a negative is.
    class_loss = cross_entropy(
        logits, tf.where(positives, gclasses, 0), label_smoothing
    )
    # Of thousands of negatives per image only the hardest count.
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
    """Computes N, which the losses of a batch are divided by.

    Args:
      gscores: float32, list of `[B, h, w, a]` or one `[B, A]`.
      match_threshold, mining, normalizer: as in `ssd_losses`.

    Returns:
      float32 scalar, at least 1: positives, or images, of all replicas.
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
    """Selects the anchors that are trained to detect an object.

    Args:
      gscores: float32 `[B, A]`.
      match_threshold, mining: as in `ssd_losses`.

    Returns:
      bool `[B, A]`.
    """
    if mining == "image":
        return gscores >= match_threshold
    return gscores > match_threshold


def cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, label_smoothing: float = 0.0
) -> tf.Tensor:
    """Computes the softmax cross entropy of each anchor.

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


def abs_smooth(x: tf.Tensor) -> tf.Tensor:
    """Computes smooth L1: 0.5 x^2 if |x| <= 1, else |x| - 0.5 (Fast R-CNN)."""
    size = tf.abs(x)
    return 0.5 * ((size - 1) * tf.minimum(size, 1) + size)


def _mine(
    logits,
    class_loss,
    positives,
    candidates,
    negative_ratio,
    mining,
    min_negatives,
):
    """Selects the negatives that count, bool `[B, A]`; see `ssd_losses`."""
    per_image = tf.reduce_sum(tf.cast(positives, tf.float32), axis=1)
    if mining == "image":
        counts = tf.cast(negative_ratio * per_image, tf.int32)
        counts = tf.maximum(counts, min_negatives)
        return mine_per_image(class_loss, candidates, counts)
    background = tf.stop_gradient(tf.nn.softmax(logits)[..., 0])
    count = tf.cast(negative_ratio * tf.reduce_sum(per_image), tf.int32)
    # The port adds one negative per image.
    count += tf.shape(logits)[0]
    return mine_over_batch(background, candidates, count)


def mine_per_image(
    difficulty: tf.Tensor, candidates: tf.Tensor, counts: tf.Tensor
) -> tf.Tensor:
    """Selects exactly the given number of hardest candidates in each image.

    Args:
      difficulty: float32 `[B, A]`, not negative; higher is harder.
      candidates: bool `[B, A]`.
      counts: int32 `[B]`; all candidates are taken if there are fewer.

    Returns:
      bool `[B, A]`; of candidates that are equally hard the first are taken.
    """
    counts = tf.minimum(
        counts, tf.reduce_sum(tf.cast(candidates, tf.int32), axis=1)
    )
    value = tf.where(candidates, difficulty, -1.0)
    # Ranks all anchors, so that shapes do not depend on the counts.
    ranked = tf.math.top_k(value, k=tf.shape(value)[1]).values
    last = tf.gather(ranked, tf.maximum(counts - 1, 0), batch_dims=1)[:, None]
    # All that are harder than the last one taken, then its equals in order.
    above = candidates & (value > last)
    ties = candidates & (value == last)
    room = counts - tf.reduce_sum(tf.cast(above, tf.int32), axis=1)
    in_room = tf.cumsum(tf.cast(ties, tf.int32), axis=1) <= room[:, None]
    return (above | (ties & in_room)) & (counts[:, None] > 0)


def mine_over_batch(
    background: tf.Tensor, candidates: tf.Tensor, count: tf.Tensor
) -> tf.Tensor:
    """Selects negatives as the port does, ranked over the whole batch.

    Candidates count whose background probability is below the `count`-th
    smallest: that anchor and its equals are left out (the port's defect, kept
    for parity).

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


def _masked_sum(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.where(mask, values, 0.0))


def _sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
