"""`SSDNet`: a network, its anchors, and what goes with them.

Knows nothing of data or training.
"""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.config.net import SSDParams
from ssd_tf.multibox import anchors as anchor_boxes
from ssd_tf.multibox import detection, encoder, losses
from ssd_tf.nets.heads import ssd_net
from ssd_tf.nets.layers import dtype_policy, variable_name


class SSDNet:
    """One SSD detector: its settings, its Keras model, and what goes with it.

    The methods have the port's names and orders of arguments. Per-layer lists
    have shapes `[B, h, w, a, ...]`; inside there is one anchor axis.
    """

    def __init__(self, params: SSDParams, precision: str = "float32"):
        """Builds the model.

        Args:
          params: a preset of `ssd_tf.config.presets`, or `dataclasses.replace`
            of one.
          precision: Keras dtype policy of the layers; outputs stay float32.
        """
        with dtype_policy(precision):
            inputs = keras.Input((*params.img_shape, 3), name="images")
            outputs = ssd_net(inputs, params)
        self._all_outputs = keras.Model(inputs, outputs, name=params.trunk)
        self.model = keras.Model(
            inputs,
            {key: outputs[key] for key in ("logits", "localisations")},
            name=params.model_name or "ssd",
        )
        # What the network really gives, so that anchors cannot disagree.
        feat_shapes = tuple(
            tuple(layer.shape[1:3]) for layer in outputs["logits"]
        )
        self.params = dataclasses.replace(
            params,
            feat_shapes=feat_shapes,
            anchor_steps=params.anchor_steps
            or anchor_boxes.steps(params.img_shape, feat_shapes),
        )
        self.flat_anchors = anchor_boxes.flatten_anchors(self.anchors())

    def net(self, images: tf.Tensor, is_training: bool = False) -> tuple:
        """Runs the network.

        Args:
          images: float32 `[B, H, W, 3]`, whitened.
          is_training: batch norm and dropout as in training.

        Returns:
          `(predictions, localisations, logits, end_points)`: class
          probabilities, offsets and logits per layer, and the feature maps.
        """
        outputs = self._all_outputs(images, training=is_training)
        predictions = [tf.nn.softmax(layer) for layer in outputs["logits"]]
        return (
            predictions,
            outputs["localisations"],
            outputs["logits"],
            outputs["end_points"],
        )

    def anchors(
        self, img_shape: tuple[int, int] | None = None
    ) -> list[anchor_boxes.LayerAnchors]:
        """Anchors per layer: `(y [h, w, 1], x [h, w, 1], h [a], w [a])`."""
        return anchor_boxes.ssd_anchors_all_layers(self.params, img_shape)

    def bboxes_encode(
        self,
        labels: tf.Tensor,
        bboxes: tf.Tensor,
        anchors: Sequence[anchor_boxes.LayerAnchors],
        force_match: bool = True,
        ignored: tf.Tensor | None = None,
    ) -> tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]:
        """Targets per layer, see `encoder.encode`.

        Args:
          labels: integer `[n]` or `[B, n]`, padded with 0.
          bboxes: float32 `[n, 4]` or `[B, n, 4]`.
          anchors: from `anchors()`.
          force_match: gives every box an anchor; False is the port's way.
          ignored: bool, shape of `labels`: neither object nor background.

        Returns:
          `(gclasses, glocalisations, gscores)`: lists of `[h, w, a]`,
          `[h, w, a, 4]`, `[h, w, a]`, with a leading B for a batch.
        """
        targets = encoder.encode(
            labels,
            bboxes,
            anchor_boxes.flatten_anchors(anchors),
            self.params.num_classes,
            self.params.prior_scaling,
            force_match,
            ignored,
        )
        axis = targets.gclasses.shape.rank - 1
        return tuple(split_layers(target, anchors, axis) for target in targets)

    def bboxes_decode(
        self,
        localisations: Sequence[tf.Tensor],
        anchors: Sequence[anchor_boxes.LayerAnchors],
    ) -> list[tf.Tensor]:
        """Boxes `[B, h, w, a, 4]` per layer from offsets of that shape."""
        boxes = encoder.decode_boxes(
            losses.flatten_layers(localisations, 1),
            anchor_boxes.flatten_anchors(anchors),
            self.params.prior_scaling,
        )
        return split_layers(boxes, anchors, 1)

    def detected_bboxes(
        self,
        predictions: Sequence[tf.Tensor],
        bboxes: Sequence[tf.Tensor],
        select_threshold: float | None = None,
        nms_threshold: float = 0.5,
        clipping_bbox: Sequence[float] | None = None,
        top_k: int = 400,
        keep_top_k: int = 200,
    ) -> tuple[dict[int, tf.Tensor], dict[int, tf.Tensor]]:
        """Detections by class, see `detection.detect_per_class`.

        Args:
          predictions: probabilities per layer `[B, h, w, a, C]`.
          bboxes: decoded boxes per layer `[B, h, w, a, 4]`.
          select_threshold: smallest score; None keeps all.
          nms_threshold: IoU beyond which the lower score goes.
          clipping_bbox: `[4]`, cuts the boxes that are left.
          top_k: candidates per class before suppression.
          keep_top_k: detections per class.

        Returns:
          Dicts from class (1..C - 1) to scores `[B, keep_top_k]` and boxes
          `[B, keep_top_k, 4]`, zero padded.
        """
        scores, boxes = detection.detect_per_class(
            losses.flatten_layers(predictions, 1),
            losses.flatten_layers(bboxes, 1),
            select_threshold=select_threshold or 0.0,
            nms_threshold=nms_threshold,
            clipping_bbox=clipping_bbox,
            top_k=top_k,
            keep_top_k=keep_top_k,
        )
        classes = range(1, self.params.num_classes)
        return (
            {c: scores[:, c - 1] for c in classes},
            {c: boxes[:, c - 1] for c in classes},
        )

    def detect(
        self, images: tf.Tensor, options: DetectionParams = DetectionParams()
    ) -> detection.DetectedBatch:
        """Detections of whitened images `[B, H, W, 3]`.

        The one path under evaluation, drawing and export.
        """
        outputs = self.model(images, training=False)
        return detection.detect(
            outputs["logits"],
            outputs["localisations"],
            self.flat_anchors,
            self.params.prior_scaling,
            **vars(options),
        )

    def losses(
        self,
        logits: Sequence[tf.Tensor],
        localisations: Sequence[tf.Tensor],
        gclasses: Sequence[tf.Tensor],
        glocalisations: Sequence[tf.Tensor],
        gscores: Sequence[tf.Tensor],
        **options,
    ) -> dict[str, tf.Tensor]:
        """`losses.ssd_losses` with all its options."""
        return losses.ssd_losses(
            logits, localisations, gclasses, glocalisations, gscores, **options
        )

    @property
    def model_scope(self) -> str:
        """First part of the names in the port's checkpoints."""
        return self.params.model_name.removesuffix("_voc")

    def variables_by_name(self) -> dict[str, keras.Variable]:
        """Every variable under its slim name, such as `conv6/weights`."""
        return {
            variable_name(variable): variable for variable in self.model.weights
        }

    def variables_by_port_name(self) -> dict[str, keras.Variable]:
        """Every variable under the name of the port's checkpoints."""
        return {
            f"{self.model_scope}/{name}": variable
            for name, variable in self.variables_by_name().items()
        }


def split_layers(
    flat: tf.Tensor, anchors: Sequence[anchor_boxes.LayerAnchors], axis: int
) -> list[tf.Tensor]:
    """Inverse of `losses.flatten_layers`: `[..., A, ...]` -> per layer.

    `axis` is the anchor axis, which becomes the three axes h, w, a.
    """
    shapes = [y.shape[:2] + h.shape for y, _, h, _ in anchors]
    sizes = [int(np.prod(shape)) for shape in shapes]
    layers = []
    for part, shape in zip(tf.split(flat, sizes, axis), shapes, strict=True):
        before, after = tf.shape(part)[:axis], part.shape[axis + 1 :]
        layers.append(tf.reshape(part, tf.concat([before, shape, after], 0)))
    return layers
