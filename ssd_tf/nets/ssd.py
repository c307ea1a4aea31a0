"""`SSDNet`: a network with its anchors, targets, losses and detections.

Independent of data and of the training loop.
"""

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.config.net import SSDParams
from ssd_tf.multibox import anchors as anchor_boxes
from ssd_tf.multibox import detection, encoder, losses
from ssd_tf.multibox.anchor_axis import flatten_layers, split_layers
from ssd_tf.nets.heads import ssd_net
from ssd_tf.nets.layers import dtype_policy, variable_name


class SSDNet:
    """An SSD detector: `params`, the Keras `model` and `flat_anchors` [A, 4].

    The methods have the port's names and orders of arguments. Per-layer lists
    have shapes `[B, h, w, a, ...]`; see `ssd_tf.multibox.anchor_axis`.
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
        # Taken from the built network, so that anchors fit its outputs.
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
          is_training: run batch norm and dropout as in training.

        Returns:
          `(predictions, localisations, logits, end_points)`: lists over the
          feature layers of class probabilities `[B, h, w, a, C]`, offsets
          `[B, h, w, a, 4]` and logits `[B, h, w, a, C]`; the dict of feature
          maps.
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
        """Returns per layer `(y [h, w, 1], x [h, w, 1], h [a], w [a])`."""
        return anchor_boxes.ssd_anchors_all_layers(self.params, img_shape)

    def bboxes_encode(
        self,
        labels: tf.Tensor,
        bboxes: tf.Tensor,
        anchors: Sequence[anchor_boxes.LayerAnchors],
        force_match: bool = True,
        ignored: tf.Tensor | None = None,
    ) -> tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]:
        """Encodes boxes as targets per layer, see `encoder.encode`.

        Args:
          labels: integer `[n]` or `[B, n]`, padded with 0.
          bboxes: float32 `[n, 4]` or `[B, n, 4]`, corners.
          anchors: anchors that `anchors()` returned.
          force_match: give every box an anchor; the port does not.
          ignored: bool, shape of `labels`: boxes that are neither object nor
            background.

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
        """Decodes offsets `[B, h, w, a, 4]` per layer to boxes, corners."""
        boxes = encoder.decode_boxes(
            flatten_layers(localisations, 1),
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
        """Returns detections by class, see `detection.detect_per_class`.

        Args:
          predictions: probabilities per layer `[B, h, w, a, C]`.
          bboxes: decoded boxes per layer `[B, h, w, a, 4]`.
          select_threshold: lowest score; None keeps all.
          nms_threshold: IoU above which the lower score is removed.
          clipping_bbox: window `[4]` that the detected boxes are clipped to.
          top_k: candidates per class before suppression.
          keep_top_k: detections per class.

        Returns:
          Dicts from class (1..C - 1) to scores `[B, keep_top_k]` and boxes
          `[B, keep_top_k, 4]`, zero padded.
        """
        scores, boxes = detection.detect_per_class(
            flatten_layers(predictions, 1),
            flatten_layers(bboxes, 1),
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
        """Detects objects in whitened images float32 `[B, H, W, 3]`."""
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
        """Computes `losses.ssd_losses` with its options."""
        return losses.ssd_losses(
            logits, localisations, gclasses, glocalisations, gscores, **options
        )

    @property
    def model_scope(self) -> str:
        """First component of variable names in the port's checkpoints."""
        return self.params.model_name.removesuffix("_voc")

    def variables_by_name(self) -> dict[str, keras.Variable]:
        """Returns all variables by slim name, such as `conv6/weights`."""
        return {
            variable_name(variable): variable for variable in self.model.weights
        }

    def variables_by_port_name(self) -> dict[str, keras.Variable]:
        """Returns all variables by their name in the port's checkpoints."""
        return {
            f"{self.model_scope}/{name}": variable
            for name, variable in self.variables_by_name().items()
        }
