"""VOC average precision: counted by hand, empty cases, unusable input."""

import numpy as np
import pytest

from ssd_tf.evaluation.metrics.coco import COCOMetric
from ssd_tf.evaluation.metrics.outcomes import precision_recall
from ssd_tf.evaluation.metrics.voc import VOCMetric, ap_11_points

NAMES = ["cat", "dog", "cow"]
# Three boxes that do not touch, and one that overlaps none of them.
A, B, C = [0, 0, 0.2, 0.2], [0.3, 0.3, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]
AWAY = [0, 0.8, 0.1, 1]


def metric_of(*images, names=("cat",), **options):
    metric = VOCMetric(names, **options)
    for image in images:
        metric.update(**image)
    return metric


def image(found=(), truth=(), difficult=None, crowd=None):
    """From (box, score, class) and (box, label)."""
    return {
        "boxes": [box for box, _, _ in found],
        "scores": [score for _, score, _ in found],
        "classes": [label for _, _, label in found],
        "gt_boxes": [box for box, _ in truth],
        "gt_labels": [label for _, label in truth],
        "difficult": difficult,
        "crowd": crowd,
    }


def test_counted_by_hand():
    # Hit, miss, hit of two boxes: precision 1, 1/2, 2/3 at recall .5, .5, 1.
    found = [(A, 0.9, 1), (AWAY, 0.8, 1), (B, 0.7, 1)]
    metric = metric_of(image(found, [(A, 1), (B, 1)]))
    curve = metric.curves()["cat"]
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(curve.recall, [0.5, 0.5, 1])
    assert metric.result()["AP_VOC07/mAP"] == pytest.approx(28 / 33)
    assert metric.result()["AP_VOC12/mAP"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("found", "points"), [(0, 0), (1, 2), (2, 3), (3, 3), (4, 5), (10, 11)]
)
def test_recall_thresholds_are_those_of_voc_eval(found, points):
    # 3 of 10 do not reach 0.30000000000000004.
    curve = precision_recall(np.ones(found, bool), 10)
    assert ap_11_points(*curve) == pytest.approx(points / 11)


def test_second_detection_of_a_box_is_false():
    found = [(A, 0.9, 1), (A, 0.8, 1)]
    curve = metric_of(image(found, [(A, 1)])).curves()["cat"]
    np.testing.assert_array_equal(curve.precision, [1, 0.5])


def test_iou_of_exactly_the_threshold_is_no_match():
    half = [0, 0, 0.25, 0.125]
    one = image([(half, 0.9, 1)], [([0, 0, 0.25, 0.25], 1)])
    assert metric_of(one).result()["AP_VOC12/cat"] == 0
    assert metric_of(one, iou_threshold=0.49).result()["AP_VOC12/cat"] == 1


@pytest.mark.parametrize("flag", ["difficult", "crowd"])
def test_ignored_boxes_count_neither_way(flag):
    found = [(A, 0.9, 1), (A, 0.8, 1), (B, 0.7, 1)]
    one = image(found, [(A, 1), (B, 1)], **{flag: [True, False]})
    curve = metric_of(one).curves()["cat"]
    assert curve.num_ground_truth == 1
    np.testing.assert_array_equal(curve.precision, [1])


def test_a_crowd_takes_what_it_covers():
    # A person beside a crowd, four of the crowd, and one mostly outside it.
    crowd, person = [0, 0, 0.5, 1], [0.6, 0, 0.9, 0.2]
    inside = [[0.1, x, 0.3, x + 0.1] for x in (0.1, 0.3, 0.5, 0.7)]
    outside = [0.35, 0.4, 0.7, 0.5]
    found = [
        *((box, 0.9, 1) for box in inside),
        (person, 0.8, 1),
        (outside, 0.7, 1),
    ]
    one = image(found, [(crowd, 1), (person, 1)], crowd=[True, False])
    curve = metric_of(one).curves()["cat"]
    np.testing.assert_array_equal(curve.precision, [1, 0.5])
    # pycocotools counts alike.
    coco = COCOMetric(["cat"])
    coco.update(**one, height=100, width=100)
    assert coco.result()["COCO/AP"] == pytest.approx(1)
    # Nor does it hide what is found of another class.
    other = one | {"classes": [2] * 6}
    curve = metric_of(other, image([], [(A, 2)]), names=NAMES).curves()["dog"]
    np.testing.assert_array_equal(curve.precision, np.zeros(6))


def test_a_box_in_a_crowd_is_found_once():
    found = [(A, 0.9, 1), (A, 0.8, 1)]
    truth = [([0, 0, 0.5, 0.5], 1), (A, 1)]
    one = image(found, truth, crowd=[True, False])
    curve = metric_of(one).curves()["cat"]
    # The first is right, and of the second the crowd may be the reason.
    assert curve.num_ground_truth == 1
    np.testing.assert_array_equal(curve.precision, [1])


def test_difficult_first_box_hides_no_false_positive():
    # The port's defect B35.
    truth = [(A, 2), (B, 1)]
    found = [(AWAY, 0.9, 1), (B, 0.8, 1)]
    one = image(found, truth, difficult=[True, False])
    result = metric_of(one, names=NAMES).result()
    assert result["AP_VOC12/cat"] == 0.5
    assert result["AP_VOC/left_out"] == ["dog", "cow"]


def test_image_without_ground_truth_counts_false_positives():
    # The port's defect B34.
    empty = image([(A, 0.95, 1)])
    hit = image([(A, 0.9, 1)], [(A, 1)])
    assert metric_of(hit, empty).result()["AP_VOC12/cat"] == 0.5


def test_class_without_ground_truth_is_left_out_of_the_mean():
    # The port's defect B36.
    one = image([(A, 0.9, 1), (B, 0.9, 3)], [(A, 1), (C, 2)])
    result = metric_of(one, names=NAMES).result()
    assert result["AP_VOC12/cat"] == 1
    assert result["AP_VOC12/dog"] == 0
    assert result["AP_VOC12/cow"] is None
    assert result["AP_VOC12/mAP"] == 0.5
    assert result["AP_VOC/left_out"] == ["cow"]


@pytest.mark.parametrize(
    "images", [[], [image()], [image([(A, 0.9, 1)])]], ids=len
)
def test_no_ground_truth_at_all(images):
    result = metric_of(*images, names=NAMES).result()
    assert result["AP_VOC07/mAP"] is None
    assert result["AP_VOC12/mAP"] is None
    assert result["AP_VOC/left_out"] == NAMES


def test_no_detections():
    result = metric_of(image(truth=[(A, 1)])).result()
    assert result["AP_VOC07/mAP"] == result["AP_VOC12/mAP"] == 0


def test_padding_is_skipped():
    padded = image([(A, 0.9, 1), ([0] * 4, 0, 0)], [(A, 1), ([0] * 4, 0)])
    curve = metric_of(padded).curves()["cat"]
    np.testing.assert_array_equal(curve.recall, [1])
    assert curve.num_ground_truth == 1


def test_result_can_be_asked_between_updates():
    hit, miss = image([(A, 0.9, 1)], [(A, 1)]), image(truth=[(A, 1)])
    metric = metric_of(hit)
    assert metric.result()["AP_VOC12/mAP"] == 1
    metric.update(**miss)
    assert metric.result()["AP_VOC12/mAP"] == 0.5


def test_inputs_are_not_changed():
    one = image([(A, 0.8, 1), (B, 0.9, 2)], [(A, 1)], difficult=[True])
    one = {key: np.array(value) for key, value in one.items() if value}
    before = {key: value.copy() for key, value in one.items()}
    metric_of(one, names=NAMES)
    for key, value in before.items():
        np.testing.assert_array_equal(one[key], value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [0.5]}, r"scores of shape \[2\], one per box"),
        ({"classes": [1, 4]}, "classes in 0..3. Received: 1..4"),
        ({"gt_labels": [-1]}, "labels in 0..3. Received: -1..-1"),
        ({"gt_boxes": [A[:3]]}, r"boxes of shape \[n, 4\]"),
        ({"scores": [0.5, np.nan]}, "1 of 2 numbers are NaN"),
        ({"boxes": [A, [0, 0, np.inf, 1]]}, "1 of 8 numbers are NaN"),
        ({"difficult": [True, True]}, r"difficult of shape \[1\]"),
    ],
)
def test_unusable_input_is_refused(change, message):
    good = image([(A, 0.9, 1), (B, 0.8, 2)], [(A, 1)])
    with pytest.raises(ValueError, match=message):
        VOCMetric(NAMES).update(**{**good, **change})


@pytest.mark.parametrize("names", [[], ["cat", "cat"], ["cat", "mAP"]])
def test_unusable_class_names_are_refused(names):
    with pytest.raises(ValueError, match="class name"):
        VOCMetric(names)


def test_threshold_out_of_range_is_refused():
    with pytest.raises(ValueError, match="Received: 50"):
        VOCMetric(NAMES, iou_threshold=50)
