"""COCO's numbers against pycocotools' known answers and hand counts."""

import json
import pathlib

import numpy as np
import pytest

from ssd_tf.evaluation.metrics import coco
from ssd_tf.evaluation.metrics.coco import METRICS, COCOMetric

DATA = pathlib.Path(__file__).parents[1] / "data" / "eval_golden" / "coco"
NAMES = ["cat", "dog"]
# Of a 200 x 400 image: 20 x 20, 50 x 50 and 100 x 100 pixels.
SMALL = [0.1, 0.1, 0.2, 0.15]
MEDIUM = [0.5, 0.5, 0.75, 0.625]
LARGE = [0.25, 0.25, 0.75, 0.5]


def update(metric, found=(), truth=(), **options):
    """Adds an image of 200 x 400 from (box, score, class) and (box, label)."""
    metric.update(
        [box for box, _, _ in found],
        [score for _, score, _ in found],
        [label for _, _, label in found],
        [box for box, _ in truth],
        [label for _, label in truth],
        **{"height": 200, "width": 400, **options},
    )
    return metric


def rows_of_image(rows, image, labels):
    """Relative boxes [n, 4] and labels [n] of COCO's rows for this image."""
    rows = [row for row in rows if row["image_id"] == image["id"]]
    x, y, w, h = np.array([row["bbox"] for row in rows]).reshape(-1, 4).T
    boxes = np.stack([y, x, y + h, x + w], axis=-1)
    size = [image["height"], image["width"]] * 2
    return boxes / size, [labels[row["category_id"]] for row in rows], rows


def golden_metric(**options):
    """pycocotools' case, from its files."""
    truth = json.loads((DATA / "ground_truth.json").read_text())
    found = json.loads((DATA / "detections.json").read_text())
    categories = truth["categories"]
    labels = {row["id"]: k for k, row in enumerate(categories, start=1)}
    metric = COCOMetric([row["name"] for row in categories], **options)
    for image in sorted(truth["images"], key=lambda image: image["id"]):
        gt = rows_of_image(truth["annotations"], image, labels)
        boxes, classes, rows = rows_of_image(found, image, labels)
        metric.update(
            boxes,
            [row["score"] for row in rows],
            classes,
            *gt[:2],
            crowd=[row["iscrowd"] for row in gt[2]],
            height=image["height"],
            width=image["width"],
        )
    return metric


def test_reproduces_pycocotools():
    expected = {
        "AP": 0.503647,
        "AP50": 0.696973,
        "AP75": 0.571667,
        "AP_small": 0.593252,
        "AP_medium": 0.557991,
        "AP_large": 0.489363,
        "AR1": 0.386813,
        "AR10": 0.593680,
        "AR100": 0.595353,
        "AR_small": 0.654764,
        "AR_medium": 0.603130,
        "AR_large": 0.553744,
    }
    result = golden_metric().result()
    assert list(expected) == list(METRICS)
    for name, value in expected.items():
        assert result[f"COCO/{name}"] == pytest.approx(value, abs=1e-6)
    assert result["COCO/left_out"] == {}
    json.dumps(result, allow_nan=False)


def test_perfect_detections():
    truth = [(SMALL, 1), (MEDIUM, 2), (LARGE, 1)]
    found = [(box, 0.9, label) for box, label in truth]
    result = update(COCOMetric(NAMES), found, truth).result()
    assert list(result) == [f"COCO/{name}" for name in METRICS] + [
        "COCO/left_out"
    ]
    for name in METRICS:
        # One detection an image and class leaves one of two cats out.
        expected = 0.75 if name == "AR1" else 1
        assert result[f"COCO/{name}"] == pytest.approx(expected)


def test_sizes_are_pixels_of_the_original_image():
    metric = COCOMetric(NAMES)
    # 20 x 20 pixels of 200 x 400 are 100 x 100 of 1000 x 2000.
    update(metric, truth=[(SMALL, 1)], height=1000, width=2000)
    result = metric.result()
    assert result["COCO/AP_small"] is None
    assert result["COCO/AP_medium"] is None
    assert result["COCO/AP_large"] == 0


def test_what_cannot_be_measured_is_none_with_a_reason():
    result = update(COCOMetric(NAMES), [(LARGE, 0.5, 1)], [(LARGE, 1)]).result()
    assert result["COCO/AP"] == pytest.approx(1)
    assert result["COCO/AR_small"] is None
    assert set(result["COCO/left_out"]) == {
        f"COCO/{name}_{size}"
        for name in ("AP", "AR")
        for size in ("small", "medium")
    }
    reason = result["COCO/left_out"]["COCO/AP_small"]
    assert reason == "no ground truth smaller than 32 x 32 pixels"


def test_class_without_ground_truth_is_left_out_of_the_mean():
    found = [(LARGE, 0.9, 1), (MEDIUM, 0.9, 2)]
    result = update(COCOMetric(NAMES), found, [(LARGE, 1)]).result()
    assert result["COCO/AP"] == pytest.approx(1)


def test_no_detections():
    result = update(COCOMetric(NAMES), truth=[(LARGE, 1)]).result()
    assert result["COCO/AP"] == result["COCO/AR100"] == 0


@pytest.mark.parametrize("found", [[], [(LARGE, 0.9, 1)]])
def test_no_ground_truth(found):
    result = update(COCOMetric(NAMES), found).result()
    assert all(result[f"COCO/{name}"] is None for name in METRICS)
    assert result["COCO/left_out"]["COCO/AP"] == "no ground truth"


def test_no_images():
    result = COCOMetric(NAMES).result()
    assert all(result[f"COCO/{name}"] is None for name in METRICS)


def test_image_without_ground_truth_counts_false_positives():
    metric = update(COCOMetric(NAMES), [(LARGE, 0.5, 1)], [(LARGE, 1)])
    update(metric, [(LARGE, 0.9, 1)])
    assert metric.result()["COCO/AP"] == pytest.approx(0.5)


def test_crowd_absorbs_any_number_of_detections():
    truth = [(MEDIUM, 1), ([0, 0, 0.5, 0.5], 1)]
    found = [(SMALL, 0.9, 1), (SMALL, 0.8, 1), (MEDIUM, 0.7, 1)]
    crowd = update(COCOMetric(NAMES), found, truth, crowd=[False, True])
    assert crowd.result()["COCO/AP"] == pytest.approx(1)
    single = update(COCOMetric(NAMES), found, truth)
    assert single.result()["COCO/AP"] < 0.5


def test_difficult_boxes_count_like_any_other():
    truth = [(LARGE, 1), (SMALL, 1)]
    found = [(LARGE, 0.9, 1)]
    plain = update(COCOMetric(NAMES), found, truth).result()
    marked = update(COCOMetric(NAMES), found, truth, difficult=[False, True])
    assert marked.result() == plain
    assert plain["COCO/AR100"] == pytest.approx(0.5)


def test_first_annotation_can_be_matched():
    # pycocotools takes a match with annotation 0 for none.
    metric = update(COCOMetric(["cat"]), [(LARGE, 0.9, 1)], [(LARGE, 1)])
    assert metric.result()["COCO/AP"] == pytest.approx(1)


def test_padding_and_inverted_boxes_match_nothing():
    found = [([0] * 4, 0, 0), ([0.9, 0.9, 0.1, 0.1], 0.1, 1), (LARGE, 0.9, 1)]
    truth = [(LARGE, 1), ([0] * 4, 0)]
    result = update(COCOMetric(NAMES), found, truth).result()
    assert result["COCO/AP"] == pytest.approx(1)


def test_order_of_images_does_not_matter():
    rng = np.random.default_rng(1)
    images = []
    for _ in range(12):
        corner = rng.uniform(0, 0.5, (4, 2))
        boxes = np.concatenate([corner, corner + 0.3], axis=-1)
        labels = rng.integers(1, 3, 4)
        near = boxes + rng.normal(0, 0.02, boxes.shape)
        images.append((near, rng.random(4), labels, boxes, labels))
    results = []
    for order in (range(12), rng.permutation(12)):
        metric = COCOMetric(NAMES)
        for number in order:
            metric.update(*images[number], height=200, width=400)
        results.append(metric.result())
    assert results[0].pop("COCO/left_out") == results[1].pop("COCO/left_out")
    assert results[0] == pytest.approx(results[1])


def test_standard_output_stays_silent(capsys):
    update(COCOMetric(NAMES), [(LARGE, 0.9, 1)], [(LARGE, 1)]).result()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, "Received: 0 x 400"),
        ({"crowd": [True, True]}, r"crowd of shape \[1\]"),
    ],
)
def test_unusable_input_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        update(COCOMetric(NAMES), truth=[(LARGE, 1)], **change)


def test_unusable_class_names_are_refused():
    with pytest.raises(ValueError, match="distinct class names"):
        COCOMetric(["cat", "cat"])


def test_a_class_alone_has_pycocotools_numbers():
    """Every class against pycocotools on the files, told of one category."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(DATA / "ground_truth.json")
    found = truth.loadRes(str(DATA / "detections.json"))
    per_class = golden_metric().per_class()
    for category in truth.loadCats(truth.getCatIds()):
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.catIds = [category["id"]]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        numbers = per_class[category["name"]]
        for name, value in zip(METRICS, evaluation.stats, strict=True):
            if value < 0:
                assert numbers[name] is None
            else:
                assert numbers[name] == pytest.approx(value, abs=1e-12)


def test_at_any_overlap():
    metric = golden_metric()
    result, by_iou = metric.result(), metric.by_iou()
    assert by_iou["mAP"][0] == pytest.approx(result["COCO/AP50"])
    assert by_iou["mAP"][5] == pytest.approx(result["COCO/AP75"])
    assert np.mean(by_iou["mAP"]) == pytest.approx(result["COCO/AP"])
    for name, numbers in metric.per_class().items():
        if numbers["AP"] is None:
            assert by_iou[name] == [None] * 10
        else:
            assert by_iou[name][0] == pytest.approx(numbers["AP50"])
    low = golden_metric(iou_thresholds=(0.3, 0.75)).result()
    assert low["COCO/AP75"] == pytest.approx(result["COCO/AP75"])
    assert low["COCO/AP"] > result["COCO/AP"]
    assert low["COCO/AP50"] is None
    assert "not among" in low["COCO/left_out"]["COCO/AP50"]


@pytest.mark.parametrize("overlaps", [(), (0.0, 0.5), (0.75, 0.5), (0.5, 1.1)])
def test_unusable_overlaps_are_refused(overlaps):
    with pytest.raises(ValueError, match="rising iou_thresholds"):
        COCOMetric(NAMES, overlaps)


def test_processes_share_the_classes(monkeypatch):
    alone = golden_metric().result()
    monkeypatch.setattr(coco, "_DETECTIONS_PER_WORKER", 1)
    assert golden_metric().result(num_workers=2) == alone


def test_a_stated_area_decides_the_size():
    # A mask of 900 of the 2500 pixels of its box: small by area.
    masked = update(COCOMetric(NAMES), truth=[(MEDIUM, 1)], area=[900])
    assert masked.result()["COCO/AP_small"] == 0
    assert masked.result()["COCO/AP_medium"] is None
    unknown = update(COCOMetric(NAMES), truth=[(MEDIUM, 1)], area=[0])
    assert unknown.result()["COCO/AP_small"] is None
    # 32 x 32 pixels are small and medium, whatever float32 made of them.
    box = np.array([[10 / 375, 20 / 500, 42 / 375, 52 / 500]], np.float32)
    metric = COCOMetric(NAMES)
    metric.update([], [], [], box, [1], height=375, width=500, area=[1024.0001])
    for size in ("small", "medium"):
        assert metric.result()[f"COCO/AP_{size}"] == 0
