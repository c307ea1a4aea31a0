"""VOC average precision against the port, a slow oracle and a known case."""

import json
import pathlib

import numpy as np
import pytest

from ssd_tf.evaluation.metrics.voc import VOCMetric
from ssd_tf.multibox.boxes import iou_matrix

TESTS = pathlib.Path(__file__).parents[1]
NAMES = ["cat", "dog", "cow"]


def metric_of(images, iou_threshold=0.5):
    metric = VOCMetric(NAMES, iou_threshold)
    for image in images:
        metric.update(**image)
    return metric


def slow_area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def slow_intersection(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    return height * width if height > 0 and width > 0 else 0.0


def slow_iou(a, b):
    shared = slow_intersection(a, b)
    return shared / (slow_area(a) + slow_area(b) - shared)


def slow_outcomes(images, label, threshold):
    """(score, hit) of one class, best first, and the number to be found."""
    found, total = [], 0
    for number, each in enumerate(images):
        truth = [
            (box, difficult, crowd)
            for box, gt_label, difficult, crowd in zip(
                each["gt_boxes"],
                each["gt_labels"],
                each["difficult"],
                each["crowd"],
                strict=True,
            )
            if gt_label == label
        ]
        total += sum(not (hard or crowd) for _, hard, crowd in truth)
        for box, score, found_label in zip(
            each["boxes"], each["scores"], each["classes"], strict=True
        ):
            if found_label == label:
                found.append((score, number, box, truth))
    found.sort(key=lambda entry: -entry[0])  # stable
    outcomes, taken = [], set()
    for score, number, box, truth in found:
        best, best_iou = None, threshold
        for index, (gt_box, _, crowd) in enumerate(truth):
            if not crowd and slow_iou(box, gt_box) > best_iou:
                best, best_iou = index, slow_iou(box, gt_box)
        if best is not None and truth[best][1]:
            continue
        if best is not None and (number, best) not in taken:
            taken.add((number, best))
            outcomes.append((score, True))
            continue
        crowds = [gt_box for gt_box, _, crowd in truth if crowd]
        shares = [slow_intersection(box, x) / slow_area(box) for x in crowds]
        if max(shares, default=0) <= threshold:
            outcomes.append((score, False))
    return outcomes, total


def slow_average_precision(outcomes, total):
    """VOC07 and VOC12 in plain loops."""
    points, hits = [], 0
    for count, (_, hit) in enumerate(outcomes, start=1):
        hits += hit
        points.append((hits / total, hits / count))

    def best_precision(recall):
        return max([p for r, p in points if r >= recall], default=0)

    voc07 = sum(best_precision(k * 0.1) for k in range(11)) / 11
    voc12, last = 0, 0
    for recall, _ in points:
        voc12 += (recall - last) * best_precision(recall)
        last = recall
    return voc07, voc12


def random_scene(rng, num_classes=3):
    """Detections scattered about boxes, with ties, duplicates and gaps."""
    num_truth, num_found = rng.integers(0, 6), rng.integers(0, 15)
    corner = rng.uniform(0, 0.6, (num_truth, 2))
    size = rng.uniform(0.1, 0.4, (num_truth, 2))
    truth = np.concatenate([corner, corner + size], axis=1)
    if num_truth and rng.random() < 0.7:
        near = truth[rng.integers(0, num_truth, num_found)]
        boxes = near + rng.normal(0, 0.03, near.shape)
    else:
        corner = rng.uniform(0, 0.6, (num_found, 2))
        boxes = np.concatenate([corner, corner + 0.3], axis=1)
    if num_found > 2:
        boxes[1] = boxes[0]
    return {
        "boxes": boxes.astype(np.float32),
        "scores": rng.integers(0, 8, num_found) / 8,
        "classes": rng.integers(1, num_classes + 1, num_found),
        "gt_boxes": truth.astype(np.float32),
        "gt_labels": rng.integers(1, num_classes + 1, num_truth),
        "difficult": rng.random(num_truth) < 0.2,
        "crowd": rng.random(num_truth) < 0.1,
    }


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75])
def test_agrees_with_slow_oracle(seed, threshold):
    rng = np.random.default_rng(seed)
    images = [random_scene(rng) for _ in range(rng.integers(1, 12))]
    metric = metric_of(images, threshold)
    result, expected = metric.result(), []
    for label, name in enumerate(NAMES, start=1):
        outcomes, total = slow_outcomes(images, label, threshold)
        if not total:
            assert name in result["AP_VOC/left_out"]
            continue
        expected.append(slow_average_precision(outcomes, total))
        np.testing.assert_allclose(
            [result[f"AP_VOC07/{name}"], result[f"AP_VOC12/{name}"]],
            expected[-1],
            atol=1e-12,
        )
        curve = metric.curves()[name]
        np.testing.assert_array_equal(curve.scores, [s for s, _ in outcomes])
    if expected:
        means = [result["AP_VOC07/mAP"], result["AP_VOC12/mAP"]]
        np.testing.assert_allclose(means, np.mean(expected, 0), atol=1e-12)


def voc100():
    """100 real images with 273 boxes and 452 detections, see tests/data."""
    data = json.loads((TESTS / "data" / "voc100.json").read_text())
    truth, found = np.array(data["truth"]), np.array(data["found"])
    for number, (height, width) in enumerate(data["sizes"]):
        size = np.array([height, width] * 2)
        of_truth = truth[truth[:, 0] == number]
        of_found = found[found[:, 0] == number]
        yield {
            "boxes": of_found[:, 3:] / size,
            "scores": of_found[:, 2],
            "classes": of_found[:, 1].astype(int),
            "gt_boxes": of_truth[:, 3:] / size,
            "gt_labels": of_truth[:, 1].astype(int),
            "difficult": of_truth[:, 2].astype(bool),
            "crowd": np.zeros(len(of_truth), bool),
        }


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.75])
def test_agrees_with_slow_oracle_on_real_detections(threshold):
    images, names = list(voc100()), [f"class {k}" for k in range(1, 21)]
    metric = VOCMetric(names, threshold)
    for image in images:
        metric.update(**image)
    result, hits = metric.result(), 0
    for label, name in enumerate(names, start=1):
        outcomes, total = slow_outcomes(images, label, threshold)
        expected = slow_average_precision(outcomes, total)
        found = [result[f"AP_VOC{year}/{name}"] for year in ("07", "12")]
        np.testing.assert_allclose(found, expected, atol=1e-12)
        hits += sum(hit for _, hit in outcomes)
    assert len(images) == 100 and hits > 100
    assert result["AP_VOC/left_out"] == []


def golden():
    archive = np.load(TESTS / "golden" / "port_golden.npz")
    return {
        key.removeprefix("eval/"): archive[key]
        for key in archive.files
        if key.startswith("eval/")
    }


def port_skips(boxes, label, gt_boxes, gt_labels, difficult):
    """The port's mistake B35: a false positive that it does not count.

    It asks whether the best box is difficult before it asks for a match; where
    no box of the class is overlapped, the "best" is box 0 of any class.
    """
    iou = iou_matrix(boxes, gt_boxes) * (gt_labels == label)
    return difficult[iou.argmax(axis=1)] & (iou.max(axis=1) <= 0.5)


def golden_metric(with_mistake):
    values, metric = golden(), VOCMetric(NAMES)
    for i in range(len(values["glabels"])):
        truth = values["gbboxes"][i], values["glabels"][i]
        difficult = values["gdifficults"][i].astype(bool)
        parts = []
        for label in (1, 2, 3):
            boxes = values[f"bboxes/{label}"][i]
            scores = values[f"scores/{label}"][i]
            kept = scores > 1e-4  # the port's padding has score 0
            if with_mistake:
                kept &= ~port_skips(boxes, label, *truth, difficult)
            parts.append(
                (boxes[kept], scores[kept], np.full(kept.sum(), label))
            )
        found = [np.concatenate(column) for column in zip(*parts, strict=True)]
        metric.update(*found, *truth, difficult)
    return metric


def test_reproduces_port():
    values, metric = golden(), golden_metric(with_mistake=True)
    result, curves = metric.result(), metric.curves()
    for label, name in enumerate(NAMES, start=1):
        curve = curves[name]
        total = values[f"n_gbboxes/{label}"].sum()
        assert curve.num_ground_truth == total
        np.testing.assert_allclose(
            curve.precision, values[f"precision/{label}"], atol=1e-12
        )
        np.testing.assert_allclose(
            curve.recall, values[f"recall/{label}"], atol=1e-12
        )
    for year in ("07", "12"):
        expected = values[f"ap_voc{year}"]
        by_class = [result[f"AP_VOC{year}/{name}"] for name in NAMES]
        np.testing.assert_allclose(by_class, expected, atol=1e-12)
        np.testing.assert_allclose(
            result[f"AP_VOC{year}/mAP"], expected.mean(), atol=1e-12
        )


def test_differs_from_port_only_by_false_positives_it_skips():
    values, curves = golden(), golden_metric(with_mistake=False).curves()
    skipped = 0
    for label, name in enumerate(NAMES, start=1):
        hits = np.rint(values[f"recall/{label}"][-1:] * 1e9)
        np.testing.assert_array_equal(
            np.rint(curves[name].recall[-1:] * 1e9), hits
        )
        skipped += len(curves[name].recall) - len(values[f"recall/{label}"])
    assert skipped == 230


def pixel_box(x, y, w, h):
    """An inclusive pixel box covers w + 1 by h + 1 pixels."""
    return [y, x, y + h + 1, x + w + 1]


def read_rows(path):
    return [
        [float(value) for value in line.split()[1:]]
        for line in path.read_text().splitlines()
    ]


@pytest.mark.parametrize(
    ("threshold", "voc07", "voc12"),
    [
        (0.1, 0.3333333333, 0.3371980676),
        (0.3, 0.2683982683, 0.2456866804),
        (0.5, 0.0303030303, 0.0222222222),
        (0.75, 0, 0),
    ],
)
def test_known_voc_case(threshold, voc07, voc12):
    folder = TESTS / "data" / "eval_golden" / "voc"
    metric = VOCMetric(["object"], iou_threshold=threshold)
    for path in sorted((folder / "dets").iterdir()):
        found = read_rows(path)
        truth = read_rows(folder / "gts" / path.name)
        metric.update(
            [pixel_box(*row[1:]) for row in found],
            [row[0] for row in found],
            [1] * len(found),
            [pixel_box(*row) for row in truth],
            [1] * len(truth),
        )
    result = metric.result()
    assert result["AP_VOC07/mAP"] == pytest.approx(voc07, abs=1e-10)
    assert result["AP_VOC12/mAP"] == pytest.approx(voc12, abs=1e-10)


def test_order_of_images_and_detections_does_not_matter():
    rng = np.random.default_rng(5)
    images = [random_scene(rng) for _ in range(30)]
    for each in images:
        each["scores"] = rng.random(len(each["scores"]))
    expected = metric_of(images).result()
    shuffled = []
    for number in rng.permutation(len(images)):
        each = images[number]
        order = rng.permutation(len(each["scores"]))
        moved = {
            key: each[key][order] for key in ("boxes", "scores", "classes")
        }
        shuffled.append({**each, **moved})
    assert metric_of(shuffled).result() == expected
