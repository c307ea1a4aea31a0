"""The functions of an exported model: what goes in, what comes out.

Every output has the batch as its first axis, also the counts: TensorFlow
Serving answers and merges requests by rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.detect.runtimes import NAMES
from ssd_tf.export.decoding import Decoding, decode_batch
from ssd_tf.input_pipeline import preprocessing
from ssd_tf.multibox import detection
from ssd_tf.multibox.anchor_axis import flatten_layers
from ssd_tf.nets.ssd import SSDNet

Outputs = dict[str, tf.Tensor]


class Signature(NamedTuple):
    """A function of named tensors to named tensors."""

    function: Callable[..., Outputs]
    inputs: tuple[tf.TensorSpec, ...]


def make_predict(
    net: SSDNet, options: DetectionParams = DetectionParams()
) -> Callable[[Sequence[bytes]], dict[str, np.ndarray]]:
    """Returns the exported `image_bytes`, compiled, from bytes to NumPy."""
    image_bytes = make(net, options)["image_bytes"]
    serve = tf.function(
        image_bytes.function, input_signature=image_bytes.inputs
    )

    def predict(images: Sequence[bytes]) -> dict[str, np.ndarray]:
        found = serve(tf.constant(list(images), tf.string))
        return {name: found[name].numpy() for name in NAMES}

    return predict


def make(
    net: SSDNet,
    options: DetectionParams = DetectionParams(),
    decoding: Decoding = Decoding(),
) -> Mapping[str, Signature]:
    """Returns all signatures of a net, by their names.

    * `image_bytes`: encoded images -> the package's detections.
    * `image_bytes_filtered`: the same with a `score_threshold` and
      `max_detections` for each image, within those of the export.
    * `image_tensor`, `tf_example`: TF Object Detection API's, for its clients:
      pixels or serialized examples as `input_tensor`, all outputs float32.
    * `raw`: pixels of the network's size -> logits, offsets and anchors.
    """
    strings = tf.TensorSpec([None], tf.string, name="image_bytes")
    examples = tf.TensorSpec([None], tf.string, name="input_tensor")
    pixels = tf.TensorSpec([None, None, None, 3], tf.uint8, name="input_tensor")
    sized = tf.TensorSpec(
        [None, *net.params.img_shape, 3], tf.float32, name="images"
    )
    thresholds = tf.TensorSpec([None], tf.float32, name="score_threshold")
    limits = tf.TensorSpec([None], tf.int32, name="max_detections")
    from_bytes = _from_bytes(net, options, decoding)
    return {
        "image_bytes": Signature(from_bytes, (strings,)),
        "image_bytes_filtered": Signature(
            _filtered(from_bytes), (strings, thresholds, limits)
        ),
        "image_tensor": Signature(_from_pixels(net, options), (pixels,)),
        "tf_example": Signature(
            _from_examples(net, options, decoding), (examples,)
        ),
        "raw": Signature(_raw(net), (sized,)),
    }


def _prepare(net):
    """Converts a decoded image to the network's input."""

    def prepare(image):
        image = preprocessing.resize(image, net.params.img_shape)
        return preprocessing.whiten(image, net.params)

    return prepare


def _decode(net, encoded, decoding, extract=tf.identity):
    shape = (*net.params.img_shape, 3)
    return decode_batch(encoded, _prepare(net), shape, decoding, extract)


def _from_bytes(net, options, decoding):
    def image_bytes(image_bytes: tf.Tensor) -> Outputs:
        images, valid = _decode(net, image_bytes, decoding)
        return _only(net.detect(images, options)._asdict(), valid)

    return image_bytes


def _only(found: Outputs, keep: tf.Tensor) -> Outputs:
    """Returns detections of some images of a batch, and none of the others.

    Args:
      found: each `[B, ...]`.
      keep: bool `[B]`.
    """
    return {
        name: tf.where(
            tf.reshape(keep, [-1] + [1] * (len(value.shape) - 1)),
            value,
            tf.zeros_like(value),
        )
        for name, value in found.items()
    }


def _filtered(from_bytes):
    """Returns a higher threshold afterwards keeps what it keeps before:
    suppression asks the better ones only."""

    def image_bytes_filtered(
        image_bytes: tf.Tensor,
        score_threshold: tf.Tensor,
        max_detections: tf.Tensor,
    ) -> Outputs:
        found = from_bytes(image_bytes)
        scores = found.pop("detection_scores")
        limit = tf.minimum(max_detections, found.pop("num_detections"))
        wanted = tf.range(scores.shape[1]) < limit[:, None]
        wanted &= scores >= score_threshold[:, None]
        return {
            "detection_scores": tf.where(wanted, scores, 0.0),
            "detection_boxes": tf.where(
                wanted[..., None], found["detection_boxes"], 0.0
            ),
            "detection_classes": tf.where(
                wanted, found["detection_classes"], 0
            ),
            "num_detections": tf.reduce_sum(tf.cast(wanted, tf.int32), axis=1),
        }

    return image_bytes_filtered


def _from_pixels(net, options):
    def image_tensor(input_tensor: tf.Tensor) -> Outputs:
        return _tfod_outputs(net, _prepare(net)(input_tensor), options)

    return image_tensor


def _from_examples(net, options, decoding):
    def tf_example(input_tensor: tf.Tensor) -> Outputs:
        images, valid = _decode(net, input_tensor, decoding, _image_of)
        return _only(_tfod_outputs(net, images, options), valid)

    return tf_example


def _image_of(example):
    """Returns encoded image of a tf.Example; empty, and so a bad one, without
    one."""
    image = tf.io.FixedLenFeature([], tf.string, default_value="")
    features = {"image/encoded": image}
    return tf.io.parse_single_example(example, features)["image/encoded"]


def _tfod_outputs(net, images, options) -> Outputs:
    """Returns the outputs of TF Object Detection API's exporter_lib_v2.

    Args:
      images: whitened, float32 `[B, H, W, 3]`.

    Returns:
      The four of `DetectedBatch`; for each detection also its anchor and its
      scores of all classes with the background; and what all anchors said.
    """
    outputs = net.model(images, training=False)
    predictions, boxes = detection.decode(
        outputs["logits"],
        outputs["localisations"],
        net.flat_anchors,
        net.params.prior_scaling,
    )
    found, anchors = detection.keep_best(predictions, boxes, **vars(options))
    real = found.detection_scores[..., None] > 0
    scores = tf.gather(predictions, anchors, batch_dims=1)
    outputs = found._asdict() | {
        "detection_anchor_indices": anchors,
        "detection_multiclass_scores": tf.where(real, scores, 0.0),
        "raw_detection_boxes": boxes,
        "raw_detection_scores": predictions,
    }
    return {name: tf.cast(x, tf.float32) for name, x in outputs.items()}


def _raw(net):
    def raw(images: tf.Tensor) -> Outputs:
        whitened = preprocessing.whiten(images, net.params)
        outputs = net.model(whitened, training=False)
        logits = flatten_layers(outputs["logits"], 1)
        anchors = tf.constant(net.flat_anchors, tf.float32)
        return {
            "logits": logits,
            "localisations": flatten_layers(outputs["localisations"], 1),
            "anchors": tf.tile(anchors[None], [tf.shape(logits)[0], 1, 1]),
        }

    return raw
