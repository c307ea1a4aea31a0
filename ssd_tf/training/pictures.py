"""Draws training batches: targets, mined negatives and detections.

The pictures show the tensors of a training step, after all augmentation: a box
that has moved off its object, an object without an anchor, or negatives on an
object without a box are seen at a glance.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.config.net import SSDParams
from ssd_tf.config.training import LossParams
from ssd_tf.detect import drawing
from ssd_tf.multibox import boxes as geometry
from ssd_tf.multibox import detection, losses
from ssd_tf.multibox.anchor_axis import flatten_layers
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.training import step

# Smaller images are enlarged to this many pixels.
MIN_SIDE = 320
MIN_SCORE = 0.3  # of the detections that are drawn
MATCHED, FORCED, IGNORED = (60, 220, 60), (255, 160, 0), (230, 90, 255)
MINED = (255, 70, 70)


class Roles(NamedTuple):
    """Roles of the anchors in the loss; each bool [B, A]."""

    matched: tf.Tensor  # positive by its IoU
    forced: tf.Tensor  # positive only because a box took its best anchor
    mined: tf.Tensor  # the negatives that count


def pictures(
    net: SSDNet,
    batch: Mapping[str, tf.Tensor],
    loss: LossParams,
    class_names: Sequence[str],
    limit: int = 4,
) -> np.ndarray:
    """Draws the first images of a batch with targets, negatives, detections.

    The net runs as in inference, so that its state does not change; training,
    with the batch norm of the batch, may mine slightly different negatives.

    Args:
      net: net with its weights.
      batch: batch of `input_pipeline.make_for_train`, on one device.
      loss: settings of matching and mining.
      class_names: names of the classes, without the background.
      limit: largest number of images drawn.

    Returns:
      uint8 [n, h, w, 3]: for each image three side by side, with a legend.
    """
    if loss.mining == "image":
        # With "batch", negatives are mined from all images together.
        batch = {key: value[:limit] for key, value in batch.items()}
    outputs = net.model(batch["image"], training=False)
    roles = roles_of_anchors(net, batch, outputs, loss)
    found = detection.detect(
        outputs["logits"],
        outputs["localisations"],
        net.flat_anchors,
        net.params.prior_scaling,
        **vars(DetectionParams(select_threshold=MIN_SCORE)),
    )
    corners = geometry.to_corners(net.flat_anchors)
    return np.stack(
        [
            _draw(
                net.params,
                {key: value[index].numpy() for key, value in batch.items()},
                [corners[role[index].numpy()] for role in roles],
                [part[index].numpy() for part in found],
                class_names,
            )
            for index in range(min(limit, len(batch["image"])))
        ]
    )


def roles_of_anchors(
    net: SSDNet,
    batch: Mapping[str, tf.Tensor],
    outputs: Mapping[str, Sequence[tf.Tensor]],
    loss: LossParams,
) -> Roles:
    """Finds the anchors that are matched, forced and mined.

    Mined are those on which the loss of the negatives depends. A negative
    with a probability of 1 in float32 has no gradient and does not count.

    Args:
      net: net with the anchors.
      batch: `labels`, `boxes`, `ignored` of a batch.
      outputs: outputs of `net.model` for the batch.
      loss: settings of matching and mining.
    """
    options = dict(vars(loss))
    force_match = options.pop("force_match")
    encode = functools.partial(
        step.encode_batch, net, batch, loss.match_threshold
    )
    targets, without_force = encode(force_match), encode(False)
    logits = flatten_layers(outputs["logits"], 1)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        terms = losses.ssd_losses(
            logits, outputs["localisations"], *targets, **options
        )
    gradient = tape.gradient(terms["cross_entropy_neg"], logits)
    mined = tf.reduce_any(gradient != 0, axis=-1)
    positive, by_iou = (
        losses.positive_anchors(each.gscores, loss.match_threshold, loss.mining)
        for each in (targets, without_force)
    )
    return Roles(positive & by_iou, positive & ~by_iou, mined)


def to_pixels(image: np.ndarray, params: SSDParams) -> np.ndarray:
    """Inverts `preprocessing.whiten`; returns uint8 [H, W, 3]."""
    pixels = image / params.image_scale + params.image_mean
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _draw(params, example, roles, found, class_names) -> np.ndarray:
    """Draws one image: targets, mined negatives and detections."""
    picture = _enlarged(Image.fromarray(to_pixels(example["image"], params)))
    real = example["labels"] > 0
    ignored = example["boxes"][real & example["ignored"]]
    boxes = example["boxes"][real & ~example["ignored"]]
    matched, forced, mined = roles
    boxes_, scores, classes, count = found
    detected = drawing.draw_detections(
        np.asarray(picture), boxes_, scores, classes, class_names, MIN_SCORE
    )
    panels = [
        _targets(picture, boxes, ignored, matched, forced),
        _negatives(picture, boxes, mined),
        drawing.draw_caption(
            detected, [(f"{count} detections from {MIN_SCORE}", drawing.WHITE)]
        ),
    ]
    return np.concatenate([np.asarray(panel) for panel in panels], axis=1)


def _enlarged(picture: Image.Image) -> Image.Image:
    factor = -(-MIN_SIDE // min(picture.size))
    size = [factor * side for side in picture.size]
    return picture.resize(size, Image.Resampling.BILINEAR)


def _targets(picture, boxes, ignored, matched, forced):
    """Draws the boxes and the anchors that learn them."""
    picture = picture.copy()
    for anchors, color in ((matched, MATCHED), (forced, FORCED)):
        drawing.draw_frames(picture, anchors, color)
    drawing.draw_ground_truth(picture, boxes)
    drawing.draw_frames(picture, ignored, IGNORED, width=3)
    words = [
        (f"{len(boxes)} boxes", drawing.WHITE),
        (f"{len(matched)} matched", MATCHED),
        (f"{len(forced)} forced", FORCED),
        (f"{len(ignored)} ignored", IGNORED),
    ]
    return drawing.draw_caption(picture, words)


def _negatives(picture, boxes, mined):
    """Draws the boxes and the anchors that learn to be background."""
    picture = picture.copy()
    drawing.draw_frames(picture, mined, MINED)
    drawing.draw_ground_truth(picture, boxes)
    words = [
        (f"{len(boxes)} boxes", drawing.WHITE),
        (f"{len(mined)} mined negatives", MINED),
    ]
    return drawing.draw_caption(picture, words)
