"""Detections against a slow oracle, and what detects nothing."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config.presets import SSD_128_MOBILENET_V2
from ssd_tf.multibox import detection, encoder
from ssd_tf.multibox.boxes import iou_matrix
from ssd_tf.nets.ssd import SSDNet

ANCHORS = SSDNet(SSD_128_MOBILENET_V2).flat_anchors
NUMBER = len(ANCHORS)
ONE_ANCHOR = np.array([[0.5, 0.5, 0.2, 0.2]], np.float32)


def random_outputs(seed, images=2, classes=4, anchors=NUMBER, spread=1):
    random = np.random.RandomState(seed)
    logits = random.normal(0, 2, (images, anchors, classes))
    localisations = random.normal(0, spread, (images, anchors, 4))
    return logits.astype("f"), localisations.astype("f")


def sure(*classes, number=4):
    """Logits [1, n, C] of anchors that are sure; less so from left to right."""
    logits = np.zeros([1, len(classes), number], np.float32)
    for anchor, label in enumerate(classes):
        logits[0, anchor, label] = 9 - anchor
    return logits


def slow_suppress(boxes, scores, threshold):
    """Indices that survive greedy suppression, best first."""
    kept = []
    for index in np.argsort(-scores, kind="stable"):
        ious = iou_matrix(boxes[index][None], boxes[kept])[0]
        if (ious <= threshold).all():
            kept.append(index)
    return kept


def slow_detect(scores, boxes, select, threshold, top_k, keep):
    """Of one image, (score, class, box) best first."""
    found = []
    for label in range(1, scores.shape[1]):
        of_class = scores[:, label]
        chosen = np.argsort(-of_class, kind="stable")[:top_k]
        chosen = chosen[of_class[chosen] >= select]
        for index in slow_suppress(boxes[chosen], of_class[chosen], threshold):
            anchor = chosen[index]
            found.append((of_class[anchor], label, boxes[anchor]))
    return sorted(found, key=lambda entry: -entry[0])[:keep]


def assert_detections(found, row, expected):
    """One image of `Detections` equals the oracle's list, zero padded."""
    number = int(found.num_detections[row])
    assert number == len(expected)
    scores, classes, boxes = (
        np.array(column) for column in zip(*expected, strict=True)
    )
    # Softmax of some float32 logits, in both.
    np.testing.assert_allclose(
        found.detection_scores[row, :number], scores, rtol=1e-6
    )
    np.testing.assert_array_equal(
        found.detection_classes[row, :number], classes
    )
    np.testing.assert_allclose(
        found.detection_boxes[row, :number], np.clip(boxes, 0, 1), atol=1e-6
    )
    for part in found[:3]:
        assert not np.any(part[row, number:])


@pytest.mark.parametrize(
    ("seed", "classes", "spread"),
    [(0, 2, 1), (1, 4, 1), (2, 21, 1), (3, 4, 0), (4, 6, 4), (5, 10, 2)],
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 30, "keep_top_k": 50},
        {"select_threshold": 0.5, "nms_threshold": 0.2, "keep_top_k": 400},
    ],
)
def test_against_a_slow_oracle(seed, classes, spread, options):
    # A spread of 4 throws boxes several images far, 0 leaves the anchors.
    logits, localisations = random_outputs(seed, 2, classes, spread=spread)
    found = detection.detect(logits, localisations, ANCHORS, **options)
    settings = {
        "select_threshold": 0.01,
        "nms_threshold": 0.45,
        "top_k": 400,
        "keep_top_k": 200,
        **options,
    }
    scores = tf.nn.softmax(logits).numpy()
    boxes = encoder.decode_boxes(localisations, ANCHORS).numpy()
    for row in range(2):
        expected = slow_detect(scores[row], boxes[row], *settings.values())
        assert_detections(found, row, expected)


def test_shapes_and_types():
    found = detection.detect(*random_outputs(0), ANCHORS, keep_top_k=7)
    assert [(part.shape, part.dtype) for part in found] == [
        ((2, 7, 4), tf.float32),
        ((2, 7), tf.float32),
        ((2, 7), tf.int32),
        ((2,), tf.int32),
    ]


def test_laws_of_the_result():
    found = detection.detect(*random_outputs(1, spread=3), ANCHORS)
    scores, classes = found.detection_scores, found.detection_classes
    real = np.arange(200) < found.num_detections[:, None]
    assert (np.diff(scores, axis=1) <= 0).all()
    assert ((classes.numpy() >= 1) & (classes.numpy() <= 3))[real].all()
    boxes = found.detection_boxes.numpy()
    assert boxes.min() >= 0 and boxes.max() <= 1
    assert (boxes[..., :2] <= boxes[..., 2:]).all()


def test_batch_equals_single_images():
    outputs = random_outputs(2, images=3)
    batch = detection.detect(*outputs, ANCHORS)
    for row in range(3):
        single = detection.detect(*(x[row : row + 1] for x in outputs), ANCHORS)
        for ours, theirs in zip(batch, single, strict=True):
            np.testing.assert_allclose(ours[row], theirs[0], atol=1e-7)


def test_lists_of_layers_equal_one_anchor_axis():
    logits, localisations = random_outputs(3, anchors=24)
    anchors = ANCHORS[-24:]
    whole = detection.detect(logits, localisations, anchors)

    def layers(values):
        first = values[:, :20].reshape(2, 1, 5, 4, -1)
        return [first, values[:, 20:].reshape(2, 1, 1, 4, -1)]

    lists = detection.detect(layers(logits), layers(localisations), anchors)
    for ours, theirs in zip(lists, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_inside_a_function_with_an_open_batch():
    logits, localisations = random_outputs(4)
    specs = [
        tf.TensorSpec([None, *x.shape[1:]]) for x in (logits, localisations)
    ]
    compiled = tf.function(
        lambda *x: detection.detect(*x, ANCHORS), input_signature=specs
    )
    found = compiled(logits, localisations)
    expected = detection.detect(logits, localisations, ANCHORS)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert found.detection_boxes.shape == (2, 200, 4)
    none = compiled(logits[:0], localisations[:0])
    assert none.detection_boxes.shape == (0, 200, 4)


@pytest.mark.parametrize(
    ("second", "kept"),
    # Two boxes of side .2, moved apart: IoU (.2 - d) / (.2 + d).
    [(0.074, 1), (0.078, 2)],
)
def test_suppresses_beyond_the_threshold(second, kept):
    anchors = np.concatenate([ONE_ANCHOR, ONE_ANCHOR])
    anchors[1, 1] += second
    found = detection.detect(
        sure(1, 1), np.zeros([1, 2, 4], "f"), anchors, nms_threshold=0.45
    )
    assert found.num_detections == kept


def test_iou_of_exactly_the_threshold_survives():
    anchors = np.array([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.25]], "f")
    found = detection.detect(
        sure(1, 1), np.zeros([1, 2, 4], "f"), anchors, nms_threshold=0.5
    )
    assert found.num_detections == 2


def test_nothing_found():
    logits = np.zeros([2, NUMBER, 4], "f")
    logits[..., 0] = 20
    found = detection.detect(logits, np.zeros([2, NUMBER, 4]), ANCHORS)
    assert not any(np.any(part) for part in found)


def test_fewer_anchors_than_top_k():
    found = detection.detect(sure(2), np.zeros([1, 1, 4], "f"), ONE_ANCHOR)
    box = [0.4, 0.4, 0.6, 0.6]
    score = np.exp(9) / (np.exp(9) + 3)
    others = [(1 / (np.exp(9) + 3), label, box) for label in (1, 3)]
    assert others[0][0] < 0.01
    assert_detections(found, 0, [(score, 2, np.array(box))])


def test_score_of_exactly_the_threshold_counts():
    logits = np.log(np.array([[[0.5, 0.25, 0.25]]], "f"))
    score = tf.nn.softmax(logits)[0, 0, 1]
    for threshold, number in ((score, 2), (np.nextafter(score, 1), 0)):
        found = detection.detect(
            logits,
            np.zeros([1, 1, 4], "f"),
            ONE_ANCHOR,
            select_threshold=threshold,
        )
        assert found.num_detections == number


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["logits", "localisations"])
def test_an_anchor_that_is_not_finite_detects_nothing(bad, where):
    outputs = dict(
        zip(("logits", "localisations"), random_outputs(5), strict=True)
    )
    without = {name: np.delete(x, 7, axis=1) for name, x in outputs.items()}
    outputs[where][:, 7] = bad
    found = detection.detect(**outputs, anchors=ANCHORS)
    expected = detection.detect(
        **without, anchors=np.delete(ANCHORS, 7, axis=0)
    )
    for ours, theirs in zip(found, expected, strict=True):
        # The shift of the classes is another one without the anchor.
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_all_nan_detects_nothing():
    outputs = [np.full_like(x, np.nan) for x in random_outputs(0)]
    found = detection.detect(*outputs, ANCHORS)
    assert not any(np.any(part) for part in found)


@pytest.mark.parametrize("number", [4, 21, 81])
def test_classes_do_not_suppress_each_other(number):
    # The same box of every class, far outside the image and long.
    classes = range(1, number)
    anchors = np.repeat(ONE_ANCHOR, len(classes), axis=0)
    offsets = np.tile(np.array([-250, 400, 15, 15], "f"), (1, len(classes), 1))
    logits = np.full([1, len(classes), number], -9, "f")
    # Scores that differ by hundreds of ulp: their order is no chance of exp.
    logits[0, np.arange(number - 1), classes] = np.linspace(3, -3, number - 1)
    found = detection.detect(logits, offsets, anchors)
    assert found.num_detections == number - 1
    np.testing.assert_array_equal(
        found.detection_classes[0, : number - 1], classes
    )


@pytest.mark.parametrize("offset", [1e2, 1e4, 1e6, 1e30])
def test_a_box_absurdly_far_away_leaves_suppression_alone(offset):
    # Four small boxes at one place and one at the end of the world.
    anchors = np.array([[0.5, 0.5, 0.02, 0.02]] * 5, np.float32)
    offsets = np.zeros([1, 5, 4], np.float32)
    offsets[0, 0, 0] = offset
    found = detection.detect(sure(1, 3, 3, 3, 3), offsets, anchors)
    classes = found.detection_classes.numpy()[0]
    assert (classes == 3).sum() == 1


def test_candidates_are_the_best_of_every_class():
    random = np.random.RandomState(0)
    predictions = random.uniform(size=(2, 50, 4)).astype("f")
    boxes = random.uniform(size=(2, 50, 4)).astype("f")
    boxes[0, 3, 1] = np.nan
    scores, found, _ = detection.select_top_k(predictions, boxes, 0.7, 20)
    assert scores.shape == (2, 3, 20) and found.shape == (2, 3, 20, 4)
    predictions[0, 3] = 0
    for image, label in np.ndindex(2, 3):
        of_class = predictions[image, :, label + 1]
        order = np.argsort(-of_class)[:20]
        real = of_class[order] >= 0.7
        assert 3 < real.sum() < 20
        np.testing.assert_array_equal(
            scores[image, label], np.where(real, of_class[order], 0)
        )
        np.testing.assert_array_equal(
            found[image, label],
            np.where(real[:, None], boxes[image, order], 0),
        )


def test_limits_of_the_port_are_per_class():
    logits, localisations = random_outputs(6, classes=5)
    predictions = tf.nn.softmax(logits)
    boxes = encoder.decode_boxes(localisations, ANCHORS)
    window = [0.1, 0.2, 0.8, 0.9]
    scores, found = detection.detect_per_class(
        predictions,
        boxes,
        select_threshold=0.2,
        nms_threshold=0.3,
        clipping_bbox=window,
        top_k=100,
        keep_top_k=20,
    )
    assert scores.shape == (2, 4, 20) and found.shape == (2, 4, 20, 4)
    low, high = np.tile(window[:2], 2), np.tile(window[2:], 2)
    for image in range(2):
        for label in range(1, 5):
            one_class = predictions.numpy()[image][:, [0, label]]
            expected = slow_detect(
                one_class, boxes.numpy()[image], 0.2, 0.3, 100, 20
            )
            padding = [(0, 0, np.zeros(4))] * (20 - len(expected))
            column = [score for score, _, _ in expected + padding]
            np.testing.assert_allclose(scores[image, label - 1], column)
            clipped = [np.clip(box, low, high) for _, _, box in expected]
            np.testing.assert_allclose(
                found[image, label - 1], clipped + [np.zeros(4)] * len(padding)
            )
