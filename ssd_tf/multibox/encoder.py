"""Matching of anchors with boxes, and offsets from anchors (paper, 2.2).

Works on boxes, class numbers and the anchor axis; independent of where a batch
comes from and of the loss. Shapes are static if those of the inputs are, so
that everything compiles with `jit_compile=True`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from ssd_tf.multibox import boxes as geometry

# Pairs with a smaller IoU are never forced to match (Caffe's bbox_util.cpp).
MIN_FORCED_IOU = 1e-6
# An anchor is ignored if more than this share of it lies in an ignored box.
IGNORED_COVERAGE = 0.5
IGNORED_SCORE = -1.0
# Decoded boxes are at most 62.5 = 1000 / 16 times as long as their anchor, so
# that exp stays finite: log(62.5) = 4.135 (Detectron's bound).
MAX_LOG_SIZE = 4.135


class Targets(NamedTuple):
    """Targets on the concatenated anchor axis."""

    gclasses: tf.Tensor  # int64 [..., A], 0 is background
    glocalisations: tf.Tensor  # float32 [..., A, 4], cx, cy, w, h
    gscores: tf.Tensor  # float32 [..., A], IoU; 1 forced; -1 ignored


def encode(
    labels: tf.Tensor,
    bboxes: tf.Tensor,
    anchors: tf.Tensor,
    num_classes: int,
    prior_scaling: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    force_match: bool = True,
    ignored: tf.Tensor | None = None,
    match_threshold: float = 0.5,
) -> Targets:
    """Encodes boxes as the targets of every anchor.

    Every anchor takes the box of highest IoU, however small; `gscores` is that
    IoU, and the loss decides from which score on an anchor is positive. With
    `force_match` the boxes choose first: each takes its best free anchor,
    greedily by IoU (Caffe's bipartite matching, `MatchBBox` in bbox_util.cpp),
    and that anchor gets score 1. Without it the targets are the port's.

    A box matches nothing if it is non-finite, inverted or of area 0, or if
    its label is outside `1..num_classes - 1`.

    Args:
      labels: integer `[n]` or, padded with 0, `[B, n]`.
      bboxes: float32 `[n, 4]` or `[B, n, 4]`, corners.
      anchors: float32 `[A, 4]`, centre form.
      num_classes: number of classes with the background, C.
      prior_scaling: variances of cx, cy, w, h.
      force_match: give every box an anchor.
      ignored: bool, shape of `labels`: boxes that are neither object nor
        background. An anchor gets score -1 if such a box covers more than
        half of it and no other box matches it.
      match_threshold: least IoU of a match; a matched anchor is not ignored.

    Returns:
      `Targets` with the batch axis of the inputs, if they have one.
    """
    labels = tf.cast(labels, tf.int64)
    bboxes = tf.cast(bboxes, tf.float32)
    if ignored is None:
        ignored = tf.zeros_like(labels, tf.bool)
    single = labels.shape.rank == 1
    if single:
        labels, bboxes, ignored = labels[None], bboxes[None], ignored[None]
    # One more, empty box: the reductions over boxes below need at least one.
    labels = tf.pad(labels, [[0, 0], [0, 1]])
    bboxes = tf.pad(bboxes, [[0, 0], [0, 1], [0, 0]])
    ignored = tf.pad(ignored, [[0, 0], [0, 1]])
    real = _real_boxes(bboxes) & (labels > 0) & (labels < num_classes)

    # Match every anchor with a box; empty boxes have IoU 0 with all anchors.
    anchors = tf.convert_to_tensor(anchors, tf.float32)
    corners = geometry.to_corners(anchors)
    objects = tf.where((real & ~ignored)[..., None], bboxes, 0.0)
    box, gscores = _match(geometry.iou_matrix(objects, corners), force_match)
    # Give every anchor the class and the offsets of its box.
    matched = gscores > 0
    gclasses = tf.where(matched, tf.gather(labels, box, batch_dims=1), 0)
    # Where nothing matches, the port encodes the whole image.
    whole = tf.constant([0.0, 0.0, 1.0, 1.0])
    gboxes = tf.gather(objects, box, batch_dims=1)
    gboxes = tf.where(matched[..., None], gboxes, whole)
    # Ignore anchors inside ignored boxes.
    covers = tf.where((real & ignored)[..., None], bboxes, 0.0)
    coverage = _coverage(covers, anchors, corners)
    unsure = (coverage > IGNORED_COVERAGE) & (gscores < match_threshold)
    targets = Targets(
        gclasses,
        encode_boxes(gboxes, anchors, prior_scaling),
        tf.where(unsure, IGNORED_SCORE, gscores),
    )
    return Targets(*(target[0] for target in targets)) if single else targets


def _match(iou: tf.Tensor, force_match: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Chooses the box of every anchor from IoUs `[B, n, A]`.

    Returns:
      Index of the box int32 `[B, A]`, and its score float32 `[B, A]`: IoU, or
      1 where forced.
    """
    scores = tf.reduce_max(iou, axis=1)
    best = _first_index(iou, scores[:, None], axis=1)
    if not force_match:
        return best, scores
    forced = _bipartite_match(iou)
    best = tf.where(forced >= 0, forced, best)
    return best, tf.where(forced >= 0, 1.0, scores)


def _real_boxes(bboxes: tf.Tensor) -> tf.Tensor:
    """Returns bool `[...]`: finite and of positive height and width."""
    finite = tf.reduce_all(tf.math.is_finite(bboxes), axis=-1)
    return finite & tf.reduce_all(bboxes[..., 2:] > bboxes[..., :2], axis=-1)


def _first_index(values: tf.Tensor, maximum: tf.Tensor, axis: int) -> tf.Tensor:
    """Finds the first index of `maximum` along `axis`; int32, `axis` removed.

    In place of `tf.argmax`, which may return any of several equal values, and
    which XLA does not vectorise.
    """
    size = tf.shape(values)[axis]
    shape = [1] * values.shape.rank
    shape[axis] = -1
    # The largest of indices counted from the end, in float32 (exact up to
    # 2^24): XLA vectorises a maximum of floats, not a minimum of integers.
    last = tf.cast(size - 1, tf.float32)
    places = last - tf.reshape(tf.range(tf.cast(size, tf.float32)), shape)
    first = tf.reduce_max(tf.where(values == maximum, places, 0.0), axis)
    return tf.cast(last - first, tf.int32)


def _bipartite_match(iou: tf.Tensor) -> tf.Tensor:
    """Matches boxes one to one with anchors, greedily by IoU.

    Caffe's loop takes the pair of largest IoU among free boxes and anchors, n
    times. Here all boxes propose at once (Gale and Shapley, 1962): each to
    the best anchor that has not refused it; an anchor holds its best proposal
    and refuses the others; until no box is refused. The result is the same,
    since both sides rank by the same IoU (ties: first anchor, then first
    box). Boxes seldom compete, so that two or three rounds replace n.

    Args:
      iou: float32 `[B, n, A]`.

    Returns:
      int32 `[B, A]`: index of the box that an anchor is forced to take, or -1.
    """
    # Below, `held_box` [B, A] is the box whose proposal an anchor holds, or -1,
    # and `held_iou` [B, A] their IoU.
    box_index = tf.range(tf.shape(iou)[1])[:, None]  # [n, 1]
    size = iou.shape[2]

    def propose(held_iou, held_box):
        """Returns per box the best anchor that would not refuse it, or -1."""
        held_iou, held_box = held_iou[:, None], held_box[:, None]
        willing = (iou > held_iou) | (
            (iou == held_iou) & (box_index <= held_box)
        )
        open_iou = tf.where(willing, iou, 0.0)
        value = tf.reduce_max(open_iou, axis=2)  # [B, n]
        anchor = _first_index(open_iou, value[..., None], axis=2)
        return tf.where(value > MIN_FORCED_IOU, anchor, -1), value

    def refused(anchor, value):
        """Returns bool `[B, n]`: another box wins the same anchor."""
        rival = (anchor[:, :, None] == anchor[:, None, :]) & (
            anchor[:, :, None] >= 0
        )  # [B, box, rival]
        better = (value[:, None, :] > value[:, :, None]) | (
            (value[:, None, :] == value[:, :, None])
            & (tf.transpose(box_index) < box_index)
        )
        return tf.reduce_any(rival & better, axis=2)

    def at_anchors(anchor, values, nothing):
        """Scatters values `[B, n]` of boxes to their anchors `[B, A]`."""
        batch = tf.shape(anchor)[0]
        image = tf.broadcast_to(tf.range(batch)[:, None], tf.shape(anchor))
        # Index `size`, cut off below, is for boxes without an anchor.
        empty = tf.fill([batch, size + 1], nothing)
        place = tf.stack([image, anchor], axis=-1)
        return tf.tensor_scatter_nd_update(empty, place, values)[:, :size]

    def round_(_, held_iou, held_box):
        # All boxes propose anew; those that an anchor holds propose to it.
        anchor, value = propose(held_iou, held_box)
        lost = refused(anchor, value)
        taken = tf.where(lost | (anchor < 0), size, anchor)
        box = tf.broadcast_to(box_index[:, 0], tf.shape(anchor))
        held_box = at_anchors(taken, box, -1)
        held_iou = at_anchors(taken, value, MIN_FORCED_IOU)
        return tf.reduce_any(lost), held_iou, held_box

    nothing_held = tf.zeros_like(iou[:, 0])
    _, _, held_box = tf.while_loop(
        lambda again, *_: again,
        round_,
        (
            tf.constant(True),
            nothing_held + MIN_FORCED_IOU,
            tf.cast(nothing_held, tf.int32) - 1,
        ),
    )
    return held_box


def _coverage(bboxes, anchors, corners):
    """Computes the largest share `[B, A]` of an anchor in one of the boxes.

    Args:
      bboxes: float32 `[B, n, 4]`, corners.
      anchors, corners: float32 `[A, 4]`, the anchors in either form.
    """
    common = geometry.intersection_matrix(bboxes, corners)
    return tf.reduce_max(common, axis=1) / (anchors[:, 2] * anchors[:, 3])


def encode_boxes(
    bboxes: tf.Tensor, anchors: tf.Tensor, prior_scaling: Sequence[float]
) -> tf.Tensor:
    """Computes offsets of boxes from anchors (paper, equation 2).

    cx' = (cx - cx_a) / w_a / 0.1 and w' = log(w / w_a) / 0.2; cy' and h'
    likewise. The divisors, `prior_scaling`, bring the offsets to a similar
    scale. `decode_boxes` is the inverse.

    Args:
      bboxes: float32 `[..., A, 4]`, corners, of positive height and width.
      anchors: float32 `[A, 4]`, centre form.
      prior_scaling: variances of cx, cy, w, h.

    Returns:
      float32 `[..., A, 4]` in the order cx, cy, w, h.
    """
    cy, cx, h, w = tf.unstack(geometry.to_center(bboxes), axis=-1)
    y_a, x_a, h_a, w_a = tf.unstack(anchors, axis=-1)
    return tf.stack(
        [
            (cx - x_a) / w_a / prior_scaling[0],
            (cy - y_a) / h_a / prior_scaling[1],
            tf.math.log(w / w_a) / prior_scaling[2],
            tf.math.log(h / h_a) / prior_scaling[3],
        ],
        axis=-1,
    )


def decode_boxes(
    localisations: tf.Tensor,
    anchors: tf.Tensor,
    prior_scaling: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
) -> tf.Tensor:
    """Computes boxes from offsets: `decode_boxes(encode_boxes(b, a), a) == b`.

    Args:
      localisations: float32 `[..., A, 4]` in the order cx, cy, w, h.
      anchors: float32 `[A, 4]`, centre form.
      prior_scaling: variances of cx, cy, w, h.

    Returns:
      float32 `[..., A, 4]`, corners, not clipped.
    """
    cx, cy, w, h = tf.unstack(localisations, axis=-1)
    y_a, x_a, h_a, w_a = tf.unstack(
        tf.convert_to_tensor(anchors, tf.float32), axis=-1
    )
    center = [
        cy * prior_scaling[1] * h_a + y_a,
        cx * prior_scaling[0] * w_a + x_a,
        h_a * tf.exp(tf.minimum(h * prior_scaling[3], MAX_LOG_SIZE)),
        w_a * tf.exp(tf.minimum(w * prior_scaling[2], MAX_LOG_SIZE)),
    ]
    return geometry.to_corners(tf.stack(center, axis=-1))
