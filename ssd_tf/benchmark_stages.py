"""What `ssd_tf.benchmark` measures: a function a stage.

Each takes the net and the batch size and returns, by the name of the case,
functions that take one warm measurement: wall-clock seconds per image, the
results fetched. Inputs are made on the fly, the same in every run.
"""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ssd_tf import detection, export, input_pipeline, losses, train
from ssd_tf.config import DetectionParams, TrainParams
from ssd_tf.nets import nets_factory
from ssd_tf.nets.layers import L2Normalization
from ssd_tf.nets.ssd import SSDNet, split_layers

Measure = Callable[[], float]
NUM_BOXES = (1, 10, 40, 200)
PHOTO_SIZE = (375, 500)  # height and width of most VOC images, pixels
NUM_PHOTOS = 32
# A measurement lasts at least so long, so that the clock's and the machine's
# noise stay small beside it.
MIN_SECONDS = 0.2
# tf.data finds its number of threads in the first second or two.
PIPELINE_WARM_SECONDS = 2.0
# How far the background's logit lies above the others in a trained net:
# exp(-8) is well below the selection's threshold of 0.01.
BACKGROUND_LEAD = 8.0
OBJECTS_PER_ANCHORS = 0.005


def _seconds(call: Callable[[], Any], times: int) -> float:
    """Mean wall-clock seconds of a call."""
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def _fetched(function: Callable[..., Any], *args, images: int) -> Measure:
    """Measures a function of tensors, compiled already when this returns."""

    def call():
        # A device works in order: when the last result is there, all are,
        # and the smallest costs the least to fetch.
        results = tf.nest.flatten(function(*args))
        min(results, key=lambda tensor: np.prod(tensor.shape)).numpy()

    call()
    times = max(1, round(MIN_SECONDS / _seconds(call, 1)))
    return lambda: _seconds(call, times) / images


def _photo(seed: int) -> bytes:
    """A JPEG that is as large, and as slow to decode, as a photo.

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


def _boxes(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Boxes float32 `[*shape, 4]` with sides of 0.05 to 0.5."""
    size = random.uniform(0.05, 0.5, (*shape, 2))
    corner = random.uniform(0, 1 - size)
    return np.concatenate([corner, corner + size], -1).astype(np.float32)


def make_net(model_name: str, precision: str) -> SSDNet:
    """A net whose untrained outputs are mostly background, as trained ones."""
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


def _truth(net: SSDNet, batch_size: int, number: int) -> dict[str, tf.Tensor]:
    """A training batch with `number` boxes an image, but without images."""
    random = np.random.default_rng(number)
    shape = (batch_size, number)
    truth = {
        "boxes": tf.constant(_boxes(random, *shape)),
        "labels": tf.constant(
            random.integers(1, net.params.num_classes, shape)
        ),
        "ignored": tf.zeros(shape, tf.bool),
    }
    return input_pipeline.pad_boxes(truth)


def _images(net: SSDNet, batch_size: int) -> tf.Tensor:
    """Random whitened images."""
    shape = (batch_size, *net.params.img_shape, 3)
    images = tf.random.stateless_uniform(shape, (0, 0), maxval=255.0)
    return input_pipeline.whiten(images, net.params)


def _outputs(net: SSDNet, batch_size: int, trained: bool) -> list:
    """Random logits and localisations per layer.

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


def decode(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """The training input: decode, augment, resize, whiten, batch."""
    photos = [_photo(seed) for seed in range(NUM_PHOTOS)]
    boxes = _boxes(np.random.default_rng(0), NUM_PHOTOS, 5)
    no = np.zeros(boxes.shape[:2], bool)
    records = tf.data.Dataset.from_tensor_slices(
        {
            "image": photos,
            "boxes": boxes,
            "labels": np.ones(boxes.shape[:2], np.int64),
            "difficult": no,
            "crowd": no,
            "source_id": [str(seed) for seed in range(NUM_PHOTOS)],
        }
    )
    batches = input_pipeline.make_for_train(records, net.params, batch_size)
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    return {
        "all cores": _pipeline(batches, batch_size),
        "one core": _pipeline(batches.with_options(options), batch_size),
    }


def _pipeline(batches: tf.data.Dataset, batch_size: int) -> Measure:
    times = -(-2 * NUM_PHOTOS // batch_size)

    def measure():
        # Its threads end with the iterator: they never disturb other cases.
        iterator = iter(batches)
        warm_until = time.perf_counter() + PIPELINE_WARM_SECONDS
        while time.perf_counter() < warm_until:
            next(iterator)
        return _seconds(lambda: next(iterator), times) / batch_size

    return measure


def encode(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """Boxes to targets, as the train step does it."""
    encode_batch = train.make_encode(net)
    # A compilation for each number of boxes is meant, no reason to warn.
    tf.get_logger().setLevel("ERROR")
    cases = {}
    for number in NUM_BOXES:
        name = f"{number} box" if number == 1 else f"{number} boxes"
        truth = _truth(net, batch_size, number)
        cases[name] = _fetched(encode_batch, truth, images=batch_size)
    return cases


def loss(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """The three terms and their gradient by the net's outputs."""
    outputs = _outputs(net, batch_size, trained=False)
    targets = train.make_encode(net)(_truth(net, batch_size, 10))

    @tf.function
    def loss_and_gradient(outputs, targets):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            terms = losses.ssd_losses(*outputs, *targets)
            total = tf.add_n(list(terms.values()))
        return total, tape.gradient(total, outputs)

    return {
        "with gradient": _fetched(
            loss_and_gradient, outputs, targets, images=batch_size
        )
    }


def forward(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """The network from whitened images to logits and localisations."""
    return {"whole network": _forward(net.model, _images(net, batch_size))}


def bare(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """The same Keras layers with nothing of SSD's around them."""

    def bare_layer(layer):
        if isinstance(layer, (keras.layers.Reshape, L2Normalization)):
            return keras.layers.Identity(name=layer.name)
        return type(layer).from_config(layer.get_config())

    model = keras.models.clone_model(net.model, clone_function=bare_layer)
    return {"its layers alone": _forward(model, _images(net, batch_size))}


def _forward(model: keras.Model, images: tf.Tensor) -> Measure:
    function = tf.function(lambda images: model(images, training=False))
    return _fetched(function, images, images=len(images))


def detect(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """Outputs to detections; at worst all candidates are above 0.01."""

    @tf.function
    def detections(logits, localisations):
        return detection.detect(
            logits,
            localisations,
            net.flat_anchors,
            net.params.prior_scaling,
            **vars(DetectionParams()),
        )

    return {
        name: _fetched(
            detections, *_outputs(net, batch_size, trained), images=batch_size
        )
        for name, trained in (("as trained", True), ("worst case", False))
    }


def inference(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """Encoded JPEGs to detections, as the exported model does it."""
    photos = tf.constant([_photo(seed) for seed in range(batch_size)])
    infer = tf.function(export.bytes_to_detections(net, DetectionParams()))
    return {"JPEG to detections": _fetched(infer, photos, images=batch_size)}


def train_step(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """Encode, forward, loss, backward and update of one batch."""
    # Rate 0: the weights stay what the other stages measure with.
    training = TrainParams(batch_size=batch_size, learning_rate=0.0)
    optimizer = train.make_optimizer(training, steps_per_epoch=1000)
    optimizer.build(net.model.trainable_variables)
    step = train.make_train_step(
        net, optimizer, training, tf.distribute.get_strategy()
    )
    batch = _truth(net, batch_size, 10)
    batch["image"] = _images(net, batch_size)
    return {"whole step": _fetched(step, batch, images=batch_size)}


MAKERS = {
    "decode": decode,
    "encode": encode,
    "loss": loss,
    "forward": forward,
    "bare": bare,
    "detect": detect,
    "inference": inference,
    "train": train_step,
}
