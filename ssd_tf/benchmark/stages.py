"""The stages that `ssd_tf.benchmark` measures: one function per stage.

Each takes the net and the batch size and returns, by the name of the case,
functions that take one warm measurement: wall-clock seconds per image, the
results fetched. Inputs are synthetic and the same in every run.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ssd_tf.benchmark import inputs
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.config.training import AUGMENTATIONS, TrainParams
from ssd_tf.evaluation import evaluate as evaluate_lib
from ssd_tf.export import signatures
from ssd_tf.input_pipeline import batches as input_pipeline
from ssd_tf.multibox import detection, losses
from ssd_tf.nets.keras_layers import L2Normalization
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.training import optimizers
from ssd_tf.training import step as train_step

MATCH_THRESHOLD = TrainParams().loss.match_threshold
NUM_BOXES = (1, 10, 40, 200)
NUM_PHOTOS = 32
# Images of an evaluation, enough to make its start and end negligible.
NUM_EVALUATED = 160
# Of COCO's 5000 images and 80 classes, so many are in one measurement.
NUM_JUDGED, NUM_COCO_CLASSES = 1000, 80
# tf.data finds its number of threads in the first second or two.
PIPELINE_WARM_SECONDS = 2.0

# Takes one measurement: seconds per image.
Measure = Callable[[], float]
# Least duration of a measurement, to keep the noise of clock and machine small
# beside it.
MIN_SECONDS = 0.2


def seconds(call: Callable[[], Any], times: int) -> float:
    """Measures the mean wall-clock seconds of a call."""
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def warmed(call: Callable[[], Any], images: int) -> Measure:
    """Makes a measurement of a call that handles a number of images.

    The call is made here, and once more before each measurement: neither its
    compilation counts nor caches and memory in the state that the case before
    has left.
    """
    call()
    times = max(1, round(MIN_SECONDS / seconds(call, 1)))

    def measure() -> float:
        call()
        return seconds(call, times) / images

    return measure


def _fetched(function: Callable[..., Any], *args, images: int) -> Measure:
    """Measures a function of tensors, compiled already when this returns."""

    def call():
        # A device works in order: when the last result is there, all are,
        # and the smallest costs the least to fetch.
        results = tf.nest.flatten(function(*args))
        min(results, key=lambda tensor: np.prod(tensor.shape)).numpy()

    return warmed(call, images)


def _records(number: int) -> tf.data.Dataset:
    """Makes parsed records of photos with five boxes each."""
    photos = [inputs.photo(seed) for seed in range(number)]
    boxes = inputs.boxes(np.random.default_rng(0), number, 5)
    no = np.zeros(boxes.shape[:2], bool)
    return tf.data.Dataset.from_tensor_slices(
        {
            "image": photos,
            "boxes": boxes,
            "labels": np.ones(boxes.shape[:2], np.int64),
            "difficult": no,
            "crowd": no,
            "source_id": [str(seed) for seed in range(number)],
        }
    )


def decode(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """Measures the training input: decode, augment, resize, whiten, batch."""
    records = _records(NUM_PHOTOS)

    def batches(augmentation, threads=0):
        options = tf.data.Options()
        if threads:
            options.threading.private_threadpool_size = threads
            options.threading.max_intra_op_parallelism = threads
        return input_pipeline.make_for_train(
            lambda seed: records,
            NUM_PHOTOS,
            net.params,
            batch_size,
            AUGMENTATIONS[augmentation],
        ).with_options(options)

    return {
        "ssd, all cores": _pipeline(batches("ssd"), batch_size),
        **{
            f"{name}, one core": _pipeline(batches(name, 1), batch_size)
            for name in AUGMENTATIONS
        },
    }


def _pipeline(batches: tf.data.Dataset, batch_size: int) -> Measure:
    times = -(-2 * NUM_PHOTOS // batch_size)

    def measure():
        # Its threads end with the iterator and never disturb other cases.
        iterator = iter(batches)
        warm_until = time.perf_counter() + PIPELINE_WARM_SECONDS
        while time.perf_counter() < warm_until:
            next(iterator)
        return seconds(lambda: next(iterator), times) / batch_size

    return measure


def encode(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """Measures the encoding of boxes as targets, as in the train step."""
    encode_batch = train_step.make_encode(net, MATCH_THRESHOLD)
    # Each number of boxes is compiled on purpose; TensorFlow would warn.
    tf.get_logger().setLevel("ERROR")
    cases = {}
    for number in NUM_BOXES:
        name = f"{number} box" if number == 1 else f"{number} boxes"
        truth = inputs.truth(net, batch_size, number)
        cases[name] = _fetched(encode_batch, truth, images=batch_size)
    return cases


def loss(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """Measures the loss terms and their gradient by the net's outputs."""
    outputs = inputs.outputs(net, batch_size, trained=False)
    targets = train_step.make_encode(net, MATCH_THRESHOLD)(
        inputs.truth(net, batch_size, 10)
    )

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
    """Measures the net from whitened images to logits and localisations."""
    return {
        "whole network": _forward(net.model, inputs.images(net, batch_size))
    }


def bare(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """Measures the same Keras layers without the rest of SSD."""

    def bare_layer(layer):
        if isinstance(layer, (keras.layers.Reshape, L2Normalization)):
            return keras.layers.Identity(name=layer.name)
        return type(layer).from_config(layer.get_config())

    model = keras.models.clone_model(net.model, clone_function=bare_layer)
    return {"its layers alone": _forward(model, inputs.images(net, batch_size))}


def _forward(model: keras.Model, images: tf.Tensor) -> Measure:
    function = tf.function(lambda images: model(images, training=False))
    return _fetched(function, images, images=len(images))


def detect(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """Measures outputs to detections; at worst all candidates count."""

    @tf.function
    def detections(logits, localisations):
        return detection.detect(
            logits,
            localisations,
            net.flat_anchors,
            net.params.prior_scaling,
            **vars(DetectionParams()),
        )

    cases = {}
    for name, trained in (("as trained", True), ("worst case", False)):
        outputs = inputs.outputs(net, batch_size, trained)
        cases[name] = _fetched(detections, *outputs, images=batch_size)
    return cases


def inference(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """Measures encoded JPEGs to detections, as in an exported model."""
    photos = [inputs.photo(seed) for seed in range(batch_size)]
    predict = signatures.make_predict(net)
    return {"JPEG to detections": warmed(lambda: predict(photos), batch_size)}


def train(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """Measures encode, forward, loss, backward and update of one batch.

    And the network's part alone: forward, backward by the sum of all outputs,
    and the same update.
    """
    training, optimizer = _recipe(net, batch_size)
    step = train_step.make_train_step(
        net, optimizer, training, tf.distribute.get_strategy()
    )
    batch = inputs.truth(net, batch_size, 10)
    batch["image"] = inputs.images(net, batch_size)
    compiled = train_step.is_compiled(training, replicas=1)
    alone = _network_step(net, optimizer, compiled)
    # Traced and compiled by the first call, as a run does it.
    with train_step.sums_in_order():
        return {
            "whole step": _fetched(step, batch, images=batch_size),
            "network alone": _fetched(alone, batch["image"], images=batch_size),
        }


def _recipe(net, batch_size):
    # Rate 0: the weights stay what the other stages measure with.
    training = TrainParams(batch_size=batch_size, learning_rate=0.0)
    optimizer = optimizers.make_optimizer(training, steps_per_epoch=1000)
    optimizer.build(net.model.trainable_variables)
    return training, optimizer


def _network_step(net, optimizer, compiled):
    @tf.function(jit_compile=compiled or None)
    def step(images):
        variables = net.model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(net.model(images, training=True))
        optimizer.apply(tape.gradient(outputs, variables), variables)
        return outputs

    return step


def evaluate(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """Measures the detecting part of an evaluation, from JPEGs to boxes.

    And the network and suppression alone, on a batch that is ready.
    """
    number = batch_size * -(-NUM_EVALUATED // batch_size)
    batches = input_pipeline.make_for_eval(
        _records(number), input_pipeline.prepare_for(net.params), batch_size
    )
    detect = evaluate_lib.make_detect(net)
    num_classes = net.params.num_classes - 1

    def predict(batch):
        found = detect(batch["image"])._asdict()
        return {name: part.numpy() for name, part in found.items()}

    def collect():
        evaluate_lib.collect(predict, batches, num_classes, quiet=True)

    ready = next(iter(batches))
    return {
        "JPEG to judged boxes": warmed(collect, number),
        "detections alone": warmed(lambda: predict(ready), batch_size),
    }


def metrics(net: SSDNet, batch_size: int) -> dict[str, Measure]:
    """Measures VOC's and COCO's metrics of images with 100 detections each."""
    del net, batch_size
    images = inputs.image_results(
        NUM_JUDGED, num_detections=100, num_classes=NUM_COCO_CLASSES
    )
    names = [f"class {k}" for k in range(NUM_COCO_CLASSES)]

    def measure():
        evaluate_lib.measure(images, names, num_workers=os.cpu_count() or 1)

    return {f"{NUM_COCO_CLASSES} classes": warmed(measure, len(images))}
