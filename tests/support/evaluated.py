"""Evaluated images for the tests of metrics: by hand, and at random."""

import numpy as np

from ssd_tf.evaluation.metrics import bootstrap, inputs
from ssd_tf.evaluation.metrics.coco import COCOMetric
from ssd_tf.evaluation.metrics.voc import VOCMetric

NAMES = ("cat", "dog", "cow")


def image(found=(), truth=(), difficult=None, crowd=None, size=(100, 100)):
    """From (box, score, class) and (box, label); boxes in pixels."""
    number = len(NAMES)
    detections = inputs.detections(
        [box for box, _, _ in found],
        [score for _, score, _ in found],
        [label for _, _, label in found],
        number,
    )
    boxes = inputs.ground_truth(
        [box for box, _ in truth],
        [label for _, label in truth],
        difficult,
        crowd,
        number,
    )
    return inputs.ImageResult("image", *size, detections, boxes)


def random_images(seed, count=12, size=(120, 160), ties=True):
    """Images with hits, near misses, doubles, confusions, ties and crowds."""
    rng = np.random.default_rng(seed)
    return [
        _random_image(rng, str(number), size, ties) for number in range(count)
    ]


def _random_image(rng, source_id, size, ties):
    num_truth, num_found = rng.integers(0, 6), rng.integers(0, 14)
    corner = rng.uniform(0, 0.6, (num_truth, 2))
    side = rng.uniform(0.1, 0.4, (num_truth, 2))
    truth = np.concatenate([corner, corner + side], axis=1)
    labels = rng.integers(1, 4, num_truth)
    if num_truth:
        near = rng.integers(0, num_truth, num_found)
        boxes = truth[near] + rng.normal(0, 0.03, (num_found, 4))
        right = rng.random(num_found) < 0.7
        classes = np.where(right, labels[near], rng.integers(1, 4, num_found))
    else:
        corner = rng.uniform(0, 0.6, (num_found, 2))
        boxes = np.concatenate([corner, corner + 0.3], axis=1)
        classes = rng.integers(1, 4, num_found)
    scores = rng.random(num_found)
    if ties:
        scores = np.ceil(10 * scores) / 10
    return inputs.image_result(
        source_id,
        *size,
        inputs.detections(boxes, scores, classes, 3),
        inputs.ground_truth(
            truth,
            labels,
            rng.random(num_truth) < 0.1,
            rng.random(num_truth) < 0.1,
            3,
        ),
    )


def metrics_of(images):
    both = VOCMetric(NAMES), COCOMetric(NAMES)
    for image in images:
        for metric in both:
            metric.add(image.found, image.truth)
    return both


def judged_of(images):
    return bootstrap.Judged(*(x.outcomes() for x in metrics_of(images)))


def official(images):
    voc_metric, coco_metric = metrics_of(images)
    return {**voc_metric.result(), **coco_metric.result()}
