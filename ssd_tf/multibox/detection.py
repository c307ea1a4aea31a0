"""Network outputs to detections: decode, select, suppress, keep (paper, 3.7).

Evaluation, drawing and export all use `detect`. Works on the anchor axis;
independent of ground truth and files.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from ssd_tf.multibox import boxes as geometry
from ssd_tf.multibox import encoder
from ssd_tf.multibox.anchor_axis import Layers, flatten_layers

# Boxes with a larger coordinate, in image sides, are dropped: in
# `_suppress_all_classes` they would cost all boxes precision. None of them
# touches the image: anchors of SSD300 and SSD512 are at most 1.28 sides long,
# decoded boxes at most 62.5 times as long (`encoder.MAX_LOG_SIZE`), 80 sides.
_MAX_COORDINATE = 100.0


class DetectedBatch(NamedTuple):
    """Detections of a batch, by descending score, zero padded."""

    detection_boxes: tf.Tensor  # float32 [B, K, 4], clipped to the image
    detection_scores: tf.Tensor  # float32 [B, K]
    detection_classes: tf.Tensor  # int32 [B, K], 1-based, 0 pads
    num_detections: tf.Tensor  # int32 [B]


def detect(
    logits: Layers,
    localisations: Layers,
    anchors: tf.Tensor,
    prior_scaling: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    select_threshold: float = 0.01,
    nms_threshold: float = 0.45,
    top_k: int = 400,
    keep_top_k: int = 200,
) -> DetectedBatch:
    """Detects objects in a batch of images (Caffe's DetectionOutput layer).

    Non-maximum suppression runs on the `top_k` best scores of each class that
    are at least `select_threshold`; over all classes of an image the
    `keep_top_k` best of the remaining boxes are returned.

    Args:
      logits: float32, list of `[B, h, w, a, C]` or one `[B, A, C]`.
      localisations: float32, list of `[B, h, w, a, 4]` or one `[B, A, 4]`.
      anchors: float32 `[A, 4]`, centre form.
      prior_scaling: variances of cx, cy, w, h.
      select_threshold: lowest score of a detection.
      nms_threshold: IoU above which the lower score is removed.
      top_k: candidates per class and image.
      keep_top_k: detections per image, K.

    Returns:
      `DetectedBatch`. An anchor with NaN among its outputs detects nothing.
    """
    predictions, boxes = decode(logits, localisations, anchors, prior_scaling)
    detections, _ = keep_best(
        predictions, boxes, select_threshold, nms_threshold, top_k, keep_top_k
    )
    return detections


def decode(
    logits: Layers,
    localisations: Layers,
    anchors: tf.Tensor,
    prior_scaling: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes the outputs of all anchors; arguments are those of `detect`.

    Returns:
      Probabilities float32 `[B, A, C]`, and boxes float32 `[B, A, 4]`, not
      clipped to the image.
    """
    logits = tf.cast(flatten_layers(logits, 1), tf.float32)
    localisations = flatten_layers(localisations, 1)
    boxes = encoder.decode_boxes(
        tf.cast(localisations, tf.float32), anchors, prior_scaling
    )
    return tf.nn.softmax(logits), boxes


def keep_best(
    predictions: tf.Tensor,
    boxes: tf.Tensor,
    select_threshold: float = 0.01,
    nms_threshold: float = 0.45,
    top_k: int = 400,
    keep_top_k: int = 200,
) -> tuple[DetectedBatch, tf.Tensor]:
    """Chooses detections among the decoded anchors.

    Args:
      predictions, boxes: results of `decode`.
      select_threshold, nms_threshold, top_k, keep_top_k: as in `detect`.

    Returns:
      `DetectedBatch`, and int32 `[B, K]`: the anchor of each detection, 0 pads.
    """
    # The best candidates of every class, [B, C - 1, k].
    best = select_top_k(predictions, boxes, select_threshold, top_k)
    num_classes, candidates = best.scores.shape[1], best.scores.shape[2]
    # Non-maximum suppression, per class.
    kept, count = _suppress_all_classes(
        best.scores, best.boxes, nms_threshold, keep_top_k
    )  # [B, K], [B]; indices into [C - 1, k], flattened

    # Gather what is kept; the index tells the class, and so the anchor.
    total = num_classes * candidates
    scores, boxes = _take(
        tf.reshape(best.scores, [-1, total]),
        tf.reshape(best.boxes, [-1, total, 4]),
        kept,
        count,
        tf.constant([0.0, 0.0, 1.0, 1.0]),
    )
    real = scores > 0
    classes = tf.where(real, kept // candidates + 1, 0)
    anchors = tf.gather(
        tf.reshape(best.anchors, [-1, total]), kept, batch_dims=1
    )
    return (
        DetectedBatch(boxes, scores, classes, count),
        tf.where(real, anchors, 0),
    )


class Candidates(NamedTuple):
    """The best boxes of every class but the background, descending."""

    scores: tf.Tensor  # float32 [B, C - 1, k], 0 where not selected
    boxes: tf.Tensor  # float32 [B, C - 1, k, 4], 0 where not selected
    anchors: tf.Tensor  # int32 [B, C - 1, k]


def select_top_k(
    predictions: tf.Tensor,
    boxes: tf.Tensor,
    select_threshold: float,
    top_k: int,
) -> Candidates:
    """Selects the best candidates of every class but the background.

    Args:
      predictions: probabilities float32 `[B, A, C]`.
      boxes: float32 `[B, A, 4]`.
      select_threshold: lowest score of a candidate.
      top_k: candidates per class and image, k; at most A.

    Returns:
      `Candidates`. Those with a score below the threshold, or with a box that
      is non-finite or far outside the image, are not selected: score 0.
    """
    near = tf.reduce_all(tf.abs(boxes) < _MAX_COORDINATE, axis=-1)
    scores = tf.transpose(predictions[..., 1:], [0, 2, 1])  # [B, C - 1, A]
    # Before top_k, which is fast on equal zeros. NaN compares as False.
    selected = (scores >= select_threshold) & near[:, None]
    scores = tf.where(selected, scores, 0.0)
    scores, anchor = tf.math.top_k(scores, min(top_k, boxes.shape[1]))
    boxes = tf.gather(boxes, anchor, batch_dims=1)
    boxes = tf.where(scores[..., None] > 0, boxes, 0.0)
    return Candidates(scores, boxes, anchor)


def _suppress_all_classes(scores, boxes, nms_threshold, keep_top_k):
    """Suppresses boxes of each class, all classes of an image in one pass.

    Boxes of class k are moved to the k-th cell of a grid, where they do not
    overlap those of other classes. One greedy pass by score then ends as soon
    as the image has `keep_top_k` boxes. The grid is square to keep the shifts,
    and with them the loss of float32 digits, small.

    Args:
      scores: float32 `[B, C - 1, k]`.
      boxes: float32 `[B, C - 1, k, 4]`.
      nms_threshold, keep_top_k: as in `detect`.

    Returns:
      Indices int32 `[B, K]` into the (C - 1) * k candidates, counts `[B]`.
    """
    num_classes, candidates = scores.shape[1], scores.shape[2]
    columns = math.ceil(math.sqrt(num_classes))
    cells = tf.range(num_classes)
    cells = tf.stack([cells // columns, cells % columns] * 2, axis=-1)
    cells = tf.cast(cells, tf.float32)[:, None]  # [C - 1, 1, 4]

    def suppress(image):
        image_scores, image_boxes = image
        low = tf.reduce_min(image_boxes)
        spacing = tf.reduce_max(image_boxes) - low + 1.0
        shifted = image_boxes - low + cells * spacing
        return _suppress(
            tf.reshape(shifted, [num_classes * candidates, 4]),
            tf.reshape(image_scores, [-1]),
            nms_threshold,
            keep_top_k,
        )

    return _map_rows(suppress, (scores, boxes), keep_top_k)


def detect_per_class(
    predictions: tf.Tensor,
    boxes: tf.Tensor,
    select_threshold: float = 0.0,
    nms_threshold: float = 0.5,
    clipping_bbox: Sequence[float] | None = None,
    top_k: int = 400,
    keep_top_k: int = 200,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Detects as the port does: with a limit per class, and none per image.

    Args:
      predictions: probabilities float32 `[B, A, C]`.
      boxes: float32 `[B, A, 4]`.
      select_threshold: lowest score of a detection.
      nms_threshold: IoU above which the lower score is removed.
      clipping_bbox: window `[4]` that the detected boxes are clipped to.
      top_k: candidates per class and image.
      keep_top_k: detections per class and image, K.

    Returns:
      Scores `[B, C - 1, K]` and boxes `[B, C - 1, K, 4]`, zero padded.
    """
    scores, boxes, _ = select_top_k(predictions, boxes, select_threshold, top_k)
    num_classes, candidates = scores.shape[1], scores.shape[2]
    flat_scores = tf.reshape(scores, [-1, candidates])
    flat_boxes = tf.reshape(boxes, [-1, candidates, 4])

    def suppress(row):
        return _suppress(row[1], row[0], nms_threshold, keep_top_k)

    kept, count = _map_rows(suppress, (flat_scores, flat_boxes), keep_top_k)
    scores, boxes = _take(flat_scores, flat_boxes, kept, count, clipping_bbox)
    return (
        tf.reshape(scores, [-1, num_classes, keep_top_k]),
        tf.reshape(boxes, [-1, num_classes, keep_top_k, 4]),
    )


def _suppress(boxes, scores, nms_threshold, keep_top_k):
    """Suppresses greedily by score; returns indices `[K]` and their number.

    Boxes of score 0, which are not selected, are never kept; index 0 pads.
    V5 of the kernel, since V4, which `tf.image.non_max_suppression_padded`
    uses, takes six times as long for 8000 candidates.
    """
    kept = tf.raw_ops.NonMaxSuppressionV5(
        boxes=boxes,
        scores=scores,
        max_output_size=keep_top_k,
        iou_threshold=nms_threshold,
        score_threshold=0.0,
        soft_nms_sigma=0.0,
        pad_to_max_output_size=True,
    )
    return kept.selected_indices, kept.valid_outputs


def _take(scores, boxes, kept, count, window):
    """Gathers kept scores `[N, K]` and boxes `[N, K, 4]`, zero padded.

    Args:
      scores: float32 `[N, k]`, above 0 where kept.
      boxes: float32 `[N, k, 4]`.
      kept: int32 `[N, K]`, indices into k.
      count: int32 `[N]`, number of indices that are not padding.
      window: window `[4]` that boxes are clipped to, or None.
    """
    real = tf.range(kept.shape[1]) < count[:, None]
    scores = tf.where(real, tf.gather(scores, kept, batch_dims=1), 0.0)
    boxes = tf.gather(boxes, kept, batch_dims=1)
    if window is not None:
        boxes = geometry.clip(boxes, tf.convert_to_tensor(window, tf.float32))
    return scores, tf.where(real[..., None], boxes, 0.0)


def _map_rows(suppress, rows, keep_top_k):
    """Applies the suppression, whose kernel has no batch axis, to each row."""
    return tf.map_fn(
        suppress,
        rows,
        fn_output_signature=(
            tf.TensorSpec([keep_top_k], tf.int32),
            tf.TensorSpec([], tf.int32),
        ),
    )
