"""From network outputs to detections: decode, select, suppress, keep.

The one implementation under evaluation, drawing and export. Works on the
concatenated anchor axis; knows nothing of ground truth or files.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from ssd_tf.multibox import boxes as geometry
from ssd_tf.multibox import encoder, losses

# Image sides from the image. A decoded box is at most 62.5 * 1.28 of them
# long (`encoder.MAX_LOG_SIZE`, the largest anchor), so what reaches further
# out cannot touch the image, and would take the others' float32 digits when
# the classes are moved apart.
_MAX_COORDINATE = 100.0


class DetectedBatch(NamedTuple):
    """Detections of a batch, by descending score, zero padded."""

    detection_boxes: tf.Tensor  # float32 [B, K, 4], clipped to the image
    detection_scores: tf.Tensor  # float32 [B, K]
    detection_classes: tf.Tensor  # int32 [B, K], 1-based, 0 pads
    num_detections: tf.Tensor  # int32 [B]


def detect(
    logits: losses.Layers,
    localisations: losses.Layers,
    anchors: tf.Tensor,
    prior_scaling: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    select_threshold: float = 0.01,
    nms_threshold: float = 0.45,
    top_k: int = 400,
    keep_top_k: int = 200,
) -> DetectedBatch:
    """Detections of a batch of images (Caffe's DetectionOutput layer).

    Per class the `top_k` best scores from `select_threshold` on compete by
    non-maximum suppression; of all survivors of an image the `keep_top_k`
    best are kept.

    Args:
      logits: float32, list of `[B, h, w, a, C]` or one `[B, A, C]`.
      localisations: float32, list of `[B, h, w, a, 4]` or one `[B, A, 4]`.
      anchors: float32 `[A, 4]`, centre form.
      prior_scaling: the variances of cx, cy, w, h.
      select_threshold: smallest score that counts.
      nms_threshold: IoU beyond which the lower score goes.
      top_k: candidates per class and image.
      keep_top_k: detections per image, K.

    Returns:
      `DetectedBatch`. An anchor with a NaN in its outputs detects nothing.
    """
    predictions, boxes = decode(logits, localisations, anchors, prior_scaling)
    found, _ = keep_best(
        predictions, boxes, select_threshold, nms_threshold, top_k, keep_top_k
    )
    return found


def decode(
    logits: losses.Layers,
    localisations: losses.Layers,
    anchors: tf.Tensor,
    prior_scaling: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
) -> tuple[tf.Tensor, tf.Tensor]:
    """What every anchor says, before any selection; arguments of `detect`.

    Returns:
      Probabilities float32 `[B, A, C]` and boxes float32 `[B, A, 4]`, which
      may reach out of the image.
    """
    logits = tf.cast(losses.flatten_layers(logits, 1), tf.float32)
    localisations = losses.flatten_layers(localisations, 1)
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
    """Selects, suppresses and keeps; the thresholds of `detect`.

    Args:
      predictions, boxes: from `decode`.

    Returns:
      `DetectedBatch`, and int32 `[B, K]` the anchor of each (0 pads).
    """
    best = select_top_k(predictions, boxes, select_threshold, top_k)
    num_classes, candidates = best.scores.shape[1], best.scores.shape[2]
    kept, count = _suppress_all_classes(
        best.scores, best.boxes, nms_threshold, keep_top_k
    )  # [B, K], [B]; indices into [C - 1, k], flattened

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
    """The best of every class but the background, by descending score."""

    scores: tf.Tensor  # float32 [B, C - 1, k], 0 where not selected
    boxes: tf.Tensor  # float32 [B, C - 1, k, 4], 0 where not selected
    anchors: tf.Tensor  # int32 [B, C - 1, k]


def select_top_k(
    predictions: tf.Tensor,
    boxes: tf.Tensor,
    select_threshold: float,
    top_k: int,
) -> Candidates:
    """The best candidates of every class but the background.

    Args:
      predictions: probabilities float32 `[B, A, C]`.
      boxes: float32 `[B, A, 4]`.
      select_threshold: smallest score that counts.
      top_k: candidates per class and image; all where there are fewer anchors.

    Returns:
      `Candidates`; not selected are those whose score is below the threshold
      or whose box is not finite or absurdly far from the image.
    """
    sane = tf.reduce_all(tf.abs(boxes) < _MAX_COORDINATE, axis=-1)
    scores = tf.transpose(predictions[..., 1:], [0, 2, 1])  # [B, C - 1, A]
    # Before the ranking, which is fast over equal zeros. NaN is below, too.
    selected = (scores >= select_threshold) & sane[:, None]
    scores = tf.where(selected, scores, 0.0)
    scores, anchor = tf.math.top_k(scores, min(top_k, boxes.shape[1]))
    boxes = tf.gather(boxes, anchor, batch_dims=1)
    boxes = tf.where(scores[..., None] > 0, boxes, 0.0)
    return Candidates(scores, boxes, anchor)


def _suppress_all_classes(scores, boxes, nms_threshold, keep_top_k):
    """Per-class suppression of all classes of an image in one pass.

    Boxes of class k are moved to the k-th cell of a grid, so that those of
    different classes never meet, and one greedy pass by score stops as soon
    as the image's `keep_top_k` are found. A square grid keeps the shifts, and
    with them the loss of precision, small.

    Returns:
      Indices `[B, K]` into the flattened candidates, and counts `[B]`.
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
    """The port's detections: a limit per class and none per image.

    Args:
      predictions: probabilities float32 `[B, A, C]`.
      boxes: float32 `[B, A, 4]`.
      select_threshold: smallest score that counts.
      nms_threshold: IoU beyond which the lower score goes.
      clipping_bbox: `[4]`, cuts the boxes that are left.
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
    """Greedy suppression of one list: indices [K], 0 padded, and their count.

    Score 0 marks what was not selected and is never kept. The kernel is V5
    because V4, which `tf.image.non_max_suppression_padded` takes, needs six
    times as long for 8000 candidates.
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
    """The kept ones of each row, zero padded; boxes cut to a window, if any.

    Args:
      scores: float32 `[N, k]`, above 0 where kept.
      boxes: float32 `[N, k, 4]`.
      kept: int32 `[N, K]`, indices into k.
      count: int32 `[N]`, how many of them are real.
      window: `[4]` or None.
    """
    real = tf.range(kept.shape[1]) < count[:, None]
    scores = tf.where(real, tf.gather(scores, kept, batch_dims=1), 0.0)
    boxes = tf.gather(boxes, kept, batch_dims=1)
    if window is not None:
        boxes = geometry.clip(boxes, tf.convert_to_tensor(window, tf.float32))
    return scores, tf.where(real[..., None], boxes, 0.0)


def _map_rows(suppress, rows, keep_top_k):
    """Maps the suppression, whose kernel has no batch axis, over rows."""
    return tf.map_fn(
        suppress,
        rows,
        fn_output_signature=(
            tf.TensorSpec([keep_top_k], tf.int32),
            tf.TensorSpec([], tf.int32),
        ),
    )
