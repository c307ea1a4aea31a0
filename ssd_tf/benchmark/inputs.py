"""Makes synthetic inputs of the stages that `ssd_tf.benchmark` measures.

The same in every run, and as large and as hard to compute with as real ones.
"""

import numpy as np
import tensorflow as tf

from ssd_tf.evaluation.metrics import inputs
from ssd_tf.evaluation.metrics.inputs import ImageResult
from ssd_tf.input_pipeline import batches, preprocessing
from ssd_tf.multibox.anchor_axis import split_layers
from ssd_tf.nets import nets_factory
from ssd_tf.nets.ssd import SSDNet

PHOTO_SIZE = (375, 500)  # height and width of most VOC images, pixels
# How far the background's logit lies above the others in a trained net:
# exp(-8) is well below the selection's threshold of 0.01.
BACKGROUND_LEAD = 8.0
OBJECTS_PER_ANCHORS = 0.005


def photo(seed: int) -> bytes:
    """Makes a JPEG that is as large, and as slow to decode, as a photo.

    Noise of all scales, coarse stronger than fine and mostly grey: 85 KB on
    average, where the images of VOC2012 have 87.
    """
    random = np.random.default_rng(seed)
    image = np.full((*PHOTO_SIZE, 3), 120, np.float32)
    for cell in (1, 2, 4, 8, 16, 32, 64, 128):
        shape = [-(-side // cell) for side in PHOTO_SIZE]
        noise = random.normal(size=(*shape, 1))
        noise = noise + 0.5 * random.normal(size=(*shape, 3))
        strength = 60 * (cell / 128) ** 0.4
        image += strength * tf.image.resize(noise, PHOTO_SIZE).numpy()
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    return tf.io.encode_jpeg(pixels, quality=90).numpy()


def boxes(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Draws boxes float32 `[*shape, 4]` with sides of 0.05 to 0.5."""
    size = random.uniform(0.05, 0.5, (*shape, 2))
    corner = random.uniform(0, 1 - size)
    return np.concatenate([corner, corner + size], -1).astype(np.float32)


def make_net(model_name: str, precision: str) -> SSDNet:
    """Builds a net whose outputs are mostly background, as if trained."""
    net = nets_factory.get_network(model_name)(precision=precision)
    for layer in net.model.layers:
        if (
            ".conv_cls" in layer.name
            and getattr(layer, "bias", None) is not None
        ):
            bias = layer.bias.numpy().reshape([-1, net.params.num_classes])
            bias[:, 0] += BACKGROUND_LEAD
            layer.bias.assign(bias.ravel())
    return net


def truth(net: SSDNet, batch_size: int, number: int) -> dict[str, tf.Tensor]:
    """Makes a training batch with `number` boxes an image, without images."""
    random = np.random.default_rng(number)
    shape = (batch_size, number)
    batch = {
        "boxes": tf.constant(boxes(random, *shape)),
        "labels": tf.constant(
            random.integers(1, net.params.num_classes, shape)
        ),
        "ignored": tf.zeros(shape, tf.bool),
    }
    return batches.pad_boxes(batch)


def images(net: SSDNet, batch_size: int) -> tf.Tensor:
    """Makes random whitened images [B, H, W, 3]."""
    shape = (batch_size, *net.params.img_shape, 3)
    pixels = tf.random.stateless_uniform(shape, (0, 0), maxval=255.0)
    return preprocessing.whiten(pixels, net.params)


def image_results(
    num_images: int, num_detections: int, num_classes: int
) -> list[ImageResult]:
    """Makes evaluated images like COCO's: 7 boxes on average, many errors."""
    random = np.random.default_rng(0)
    found = []
    for number in range(num_images):
        count = random.integers(1, 15)
        gt_boxes = boxes(random, count)
        labels = random.integers(1, num_classes + 1, count)
        near = random.integers(0, count, num_detections)
        guesses = random.integers(1, num_classes + 1, num_detections)
        is_right = random.random(num_detections) < 0.4
        noise = random.normal(0, 0.02, (num_detections, 4))
        detections = inputs.detections(
            gt_boxes[near] + noise,
            random.random(num_detections),
            np.where(is_right, labels[near], guesses),
            num_classes,
        )
        truth = inputs.ground_truth(gt_boxes, labels, None, None, num_classes)
        found.append(
            inputs.image_result(str(number), *PHOTO_SIZE, detections, truth)
        )
    return found


def outputs(net: SSDNet, batch_size: int, trained: bool) -> list:
    """Draws random logits and localisations per layer.

    Those of a trained net are background but for a few anchors.
    """
    random = np.random.default_rng(0)
    shape = (batch_size, len(net.flat_anchors))
    logits = random.normal(size=(*shape, net.params.num_classes))
    if trained:
        objects = random.random(shape) < OBJECTS_PER_ANCHORS
        logits[..., 0] += np.where(objects, 0, BACKGROUND_LEAD)
    localisations = random.normal(size=(*shape, 4))
    return [
        split_layers(tf.constant(flat, tf.float32), net.anchors(), 1)
        for flat in (logits, localisations)
    ]
