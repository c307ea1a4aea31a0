"""Matching of anchors with boxes, and the encode / decode pair.

Knows geometry, class numbers and the one concatenated anchor axis; nothing of
where a batch comes from or what the loss does with it. All shapes are static
when the inputs' are, so that the whole compiles with `jit_compile=True`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from ssd_tf.multibox import boxes as geometry

# Caffe's bbox_util.cpp: smaller overlaps are never forced to match.
MIN_FORCED_IOU = 1e-6
# An anchor is ignored when more than this share of it lies in ignored boxes.
IGNORED_COVERAGE = 0.5
IGNORED_SCORE = -1.0
# Box sizes beyond 1000 / 16 of an anchor's are nonsense; exp stays finite.
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

    Every anchor takes the box of its best IoU, however small; `gscores` holds
    that IoU, and the loss decides from which score an anchor is positive.
    With `force_match` the boxes first choose: each takes its best free
    anchor, greedily by IoU (Caffe's bipartite matching, `MatchBBox` in
    bbox_util.cpp), and that anchor gets score 1. Without it the targets are
    exactly the port's.

    Boxes that are NaN, inverted, of area 0, or have a label outside
    `1..num_classes - 1` match nothing.

    Args:
      labels: integer `[n]` or, padded with 0, `[B, n]`.
      bboxes: float32 `[n, 4]` or `[B, n, 4]`, corners.
      anchors: float32 `[A, 4]`, centre form.
      num_classes: with the background.
      prior_scaling: the variances of cx, cy, w, h.
      force_match: gives every box an anchor.
      ignored: bool, shape of `labels`: boxes that are neither object nor
        background; anchors that they cover by more than half, and that no
        other box matches, get score -1.
      match_threshold: IoU from which an anchor is matched and not ignored.

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
    # One empty box, so that an image without boxes needs no second path.
    labels = tf.pad(labels, [[0, 0], [0, 1]])
    bboxes = tf.pad(bboxes, [[0, 0], [0, 1], [0, 0]])
    ignored = tf.pad(ignored, [[0, 0], [0, 1]])
    real = _real_boxes(bboxes) & (labels > 0) & (labels < num_classes)

    anchors = tf.convert_to_tensor(anchors, tf.float32)
    corners = geometry.to_corners(anchors)
    objects = tf.where((real & ~ignored)[..., None], bboxes, 0.0)
    box, gscores = _match(geometry.iou_matrix(objects, corners), force_match)
    matched = gscores > 0
    gclasses = tf.where(matched, tf.gather(labels, box, batch_dims=1), 0)
    # The port encodes the whole image where nothing matches.
    whole = tf.constant([0.0, 0.0, 1.0, 1.0])
    gboxes = tf.gather(objects, box, batch_dims=1)
    gboxes = tf.where(matched[..., None], gboxes, whole)
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
    """The box of every anchor and its score, from IoU `[B, n, A]`.

    Returns:
      int32 `[B, A]`, and float32 `[B, A]`: IoU, 1 where forced.
    """
    scores = tf.reduce_max(iou, axis=1)
    best = _first_index(iou, scores[:, None], axis=1)
    if not force_match:
        return best, scores
    forced = _bipartite_match(iou)
    best = tf.where(forced >= 0, forced, best)
    return best, tf.where(forced >= 0, 1.0, scores)


def _real_boxes(bboxes: tf.Tensor) -> tf.Tensor:
    """bool `[...]`: finite and of positive height and width."""
    finite = tf.reduce_all(tf.math.is_finite(bboxes), axis=-1)
    return finite & tf.reduce_all(bboxes[..., 2:] > bboxes[..., :2], axis=-1)


def _first_index(values: tf.Tensor, maximum: tf.Tensor, axis: int) -> tf.Tensor:
    """The first index of `maximum` along `axis`; int32, `axis` removed.

    `tf.argmax` leaves open which of several equal values it names, and XLA
    vectorises two plain reductions but not an argmax.
    """
    size = tf.shape(values)[axis]
    shape = [1] * values.shape.rank
    shape[axis] = -1
    # Counted down in float32, exact up to 2^24: XLA vectorises a maximum of
    # floats, but not a minimum of integers.
    last = tf.cast(size - 1, tf.float32)
    places = last - tf.reshape(tf.range(tf.cast(size, tf.float32)), shape)
    first = tf.reduce_max(tf.where(values == maximum, places, 0.0), axis)
    return tf.cast(last - first, tf.int32)


def _bipartite_match(iou: tf.Tensor) -> tf.Tensor:
    """Greedy one-to-one matching by IoU, all images at once.

    Boxes propose to the best anchor that has not refused them, an anchor
    keeps its best proposal, until no box is refused. Since both sides rank by
    the same IoU (ties: first anchor, then first box), the outcome is that of
    Caffe's loop, which takes the largest remaining pair n times; but boxes
    seldom compete, so two or three rounds do instead of n.

    Args:
      iou: float32 `[B, n, A]`.

    Returns:
      int32 `[B, A]`: the box that an anchor is forced to take, or -1.
    """
    box_index = tf.range(tf.shape(iou)[1])[:, None]  # [n, 1]
    size = iou.shape[2]

    def propose(held_iou, held_box):
        """Best anchor per box among those that would not refuse it."""
        held_iou, held_box = held_iou[:, None], held_box[:, None]
        willing = (iou > held_iou) | (
            (iou == held_iou) & (box_index <= held_box)
        )
        open_iou = tf.where(willing, iou, 0.0)
        value = tf.reduce_max(open_iou, axis=2)  # [B, n]
        anchor = _first_index(open_iou, value[..., None], axis=2)
        return tf.where(value > MIN_FORCED_IOU, anchor, -1), value

    def refused(anchor, value):
        """bool [B, n]: another box proposes the same anchor and wins."""
        rival = (anchor[:, :, None] == anchor[:, None, :]) & (
            anchor[:, :, None] >= 0
        )  # [B, box, rival]
        better = (value[:, None, :] > value[:, :, None]) | (
            (value[:, None, :] == value[:, :, None])
            & (tf.transpose(box_index) < box_index)
        )
        return tf.reduce_any(rival & better, axis=2)

    def at_anchors(anchor, values, nothing):
        """Values `[B, n]` of the boxes, put at their anchors: `[B, A]`."""
        batch = tf.shape(anchor)[0]
        image = tf.broadcast_to(tf.range(batch)[:, None], tf.shape(anchor))
        # One place more, for the boxes without an anchor.
        empty = tf.fill([batch, size + 1], nothing)
        place = tf.stack([image, anchor], axis=-1)
        return tf.tensor_scatter_nd_update(empty, place, values)[:, :size]

    def round_(_, held_iou, held_box):
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
    """Largest share `[B, A]` of each anchor inside one of boxes `[B, n, 4]`."""
    common = geometry.intersection_matrix(bboxes, corners)
    return tf.reduce_max(common, axis=1) / (anchors[:, 2] * anchors[:, 3])


def encode_boxes(
    bboxes: tf.Tensor, anchors: tf.Tensor, prior_scaling: Sequence[float]
) -> tf.Tensor:
    """Offsets of boxes from anchors; `decode_boxes` is the inverse.

    cx' = (cx - cx_a) / w_a / .1, w' = log(w / w_a) / .2, likewise y and h
    (paper, equation 2).

    Args:
      bboxes: float32 `[..., A, 4]`, corners, of positive height and width.
      anchors: float32 `[A, 4]`, centre form.
      prior_scaling: the variances of cx, cy, w, h.

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
    """Boxes from offsets: `decode_boxes(encode_boxes(b, a), a) == b`.

    Args:
      localisations: float32 `[..., A, 4]`, cx, cy, w, h.
      anchors: float32 `[A, 4]`, centre form.
      prior_scaling: the variances of cx, cy, w, h.

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
