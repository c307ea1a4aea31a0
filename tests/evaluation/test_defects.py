"""SSD-TensorFlow's defects in evaluating, by their numbers in its inventory.

B34 an image without ground truth crashes; B35 false positives that vanish; B36
classes without ground truth count 0 and images count twice; B38 limits that
are a class's, and one graph each; B39 copies of everything in every step.
"""

import tracemalloc

import evaluated
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.evaluation import evaluate
from ssd_tf.evaluation.metrics.coco import COCOMetric
from ssd_tf.evaluation.metrics.outcomes import Tally
from ssd_tf.evaluation.metrics.voc import VOCMetric
from ssd_tf.input_pipeline import batches as input_pipeline
from ssd_tf.multibox import detection

A, B, AWAY = [0, 0, 20, 20], [40, 40, 60, 60], [80, 0, 99, 20]


def measure(*images):
    return evaluate.measure(images, evaluated.NAMES)[0]


def test_b34_an_image_without_ground_truth():
    empty = evaluated.image([(A, 0.95, 1)])
    hit = evaluated.image([(A, 0.9, 1)], [(A, 1)])
    metrics = measure(hit, empty)
    assert metrics["AP_VOC12/cat"] == 0.5
    assert metrics["COCO_per_class"]["cat"]["AP50"] == pytest.approx(0.5)


def test_b35_a_false_positive_beside_a_difficult_first_box():
    # The port asks box 0 of any class whether it is difficult.
    one = evaluated.image(
        [(AWAY, 0.9, 1), (B, 0.8, 1)],
        [(A, 2), (B, 1)],
        difficult=[True, False],
    )
    assert measure(one)["AP_VOC12/cat"] == 0.5


def test_b36_a_class_without_ground_truth_is_left_out():
    one = evaluated.image([(A, 0.9, 1), (B, 0.9, 3)], [(A, 1), (AWAY, 2)])
    metrics = measure(one)
    for year in ("07", "12"):
        assert metrics[f"AP_VOC{year}/cow"] is None
        assert metrics[f"AP_VOC{year}/mAP"] == 0.5
    assert metrics["COCO_per_class"]["cow"]["AP"] is None
    assert metrics["COCO/AP"] == pytest.approx(0.5)
    left_out = metrics["left_out"]["classes_without_ground_truth"]
    assert left_out == ["cow"]


@pytest.mark.parametrize("batch_size", [1, 5, 7, 12, 100])
def test_b36_every_image_once_at_any_batch_size(trained, batch_size):
    batches = input_pipeline.make_for_eval(
        trained.records("test"),
        input_pipeline.prepare_for(trained.settings.params),
        batch_size,
    )

    def nothing(batch):
        size = len(batch["source_id"])
        shape = size, 0
        return {
            "detection_boxes": np.zeros((*shape, 4)),
            "detection_scores": np.zeros(shape),
            "detection_classes": np.zeros(shape, int),
            "num_detections": np.zeros(size, int),
        }

    number = len(trained.settings.class_names)
    images = evaluate.collect(nothing, batches, number, quiet=True)
    records = list(trained.records("test").as_numpy_iterator())
    assert [x.source_id for x in images] == [
        x["source_id"].decode() for x in records
    ]
    boxes = [x.truth.boxes / ([x.height, x.width] * 2) for x in images]
    for found, record in zip(boxes, records, strict=True):
        # Pixels are rounded to a thousandth, of some two hundred.
        np.testing.assert_allclose(found, record["boxes"], atol=5e-6)


def outputs(num_classes, anchors=20):
    """Each of the anchors is far from the others and sure of one class."""
    logits = np.zeros((1, anchors, num_classes), np.float32)
    for anchor in range(anchors):
        logits[0, anchor, 1 + anchor % (num_classes - 1)] = 9 - anchor / 10
    corners = np.linspace(0, 0.9, anchors)
    boxes = np.stack([corners, corners] + [np.full(anchors, 0.02)] * 2, 1)
    return logits, np.zeros((1, anchors, 4), "f"), boxes.astype("f")


def test_b38_the_limit_is_the_images_and_few_anchors_will_do():
    found = detection.detect(*outputs(6), top_k=400, keep_top_k=8)
    assert found.num_detections.numpy().tolist() == [8]
    # The best eight of all classes, not eight of each.
    classes = found.detection_classes.numpy()[0]
    assert classes.tolist() == [1, 2, 3, 4, 5, 1, 2, 3]


def test_b38_boxes_are_inside_the_image_and_padding_is_none():
    logits, shifts, anchors = outputs(4)
    shifts[0, :, 2:] = 20.0  # boxes much larger than the image
    found = detection.detect(logits, shifts, anchors, keep_top_k=30)
    boxes = found.detection_boxes.numpy()
    assert boxes.min() >= 0 and boxes.max() <= 1
    number = int(found.num_detections[0])
    assert 0 < number < 30
    assert not found.detection_classes.numpy()[0, number:].any()
    image = evaluated.inputs.detections(
        *(x.numpy()[0] for x in found[:3]), num_classes=3
    )
    assert len(image.scores) == number


def test_b38_one_graph_whatever_the_number_of_classes():
    def operations(num_classes):
        logits, shifts, anchors = outputs(num_classes)
        graph = tf.function(detection.detect).get_concrete_function(
            tf.constant(logits), tf.constant(shifts), tf.constant(anchors)
        )
        return len(graph.graph.get_operations())

    assert operations(81) == operations(4) < 500


@pytest.mark.parametrize("metric", [VOCMetric, COCOMetric])
def test_b39_an_image_does_not_touch_those_before_it(metric):
    metric = metric(evaluated.NAMES)
    image = evaluated.random_images(0, count=1)[0]

    def peak_bytes_of_adding(count):
        tracemalloc.start()
        for _ in range(count):
            metric.add(image.found, image.truth)
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # What is kept grows with the count, what is copied meanwhile must not.
        return peak - held

    first = peak_bytes_of_adding(100)
    assert len(image.found.scores) > 4
    peak_bytes_of_adding(3_000)
    # A copy of 3,000 images' scores alone would be 100 kB and more.
    assert peak_bytes_of_adding(100) < first + 20_000


def test_b39_detections_of_score_0_count():
    one = evaluated.image([(AWAY, 0.0, 1), (A, 0.0, 1)], [(A, 1)])
    assert measure(one)["AP_VOC12/cat"] == 0.5
    tally = Tally(1)
    ones = np.ones(2, int)
    tally.add(np.zeros(2), ones, np.array([False, True]), ones[:1])
    (outcomes,) = tally.outcomes()
    assert outcomes.hits.tolist() == [[False, True]]
