"""COCO's results and images, read and evaluated by COCO's own tools."""

import json

import numpy as np
import pytest
from detected import BOX, NAMES, RESULTS, SMALL, result
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssd_tf.detect import formats


def test_coco_reads_its_results(tmp_path, capsys):
    formats.write_coco(tmp_path, iter(RESULTS), NAMES, 0.5)
    truth = COCO(tmp_path / "coco_images.json")
    found = truth.loadRes(str(tmp_path / "detections.json"))
    capsys.readouterr()
    assert [each["name"] for each in found.dataset["categories"]] == [
        *(*NAMES, "3")
    ]
    # COCO's tools sort ids: numbers and words do not mix.
    assert [*found.imgs] == [1, 2, 3]
    first = found.imgToAnns[1]
    assert [each["score"] for each in first] == [0.9, 0.6, 0.1]
    np.testing.assert_allclose(first[0]["bbox"], [6, 10, 24, 20])
    assert [each["category_id"] for each in first] == [2, 1, 1]
    names = [each["file_name"] for each in found.imgs.values()]
    assert names == ["in/a.jpg", "in/7.jpg", 'in/größe, "x".jpg']
    assert found.imgToAnns[2] == []


@pytest.mark.parametrize(
    "source_ids, expected",
    [
        ([], []),
        (["000000397133", "42"], [397133, 42]),
        (["0"], [0]),
        (["7", "007"], [1, 2]),
        (["7", "a"], [1, 2]),
        (["7", "-8", "1.5"], [1, 2, 3]),
        (["1", str(2**63)], [1, 2]),
        ([str(2**63 - 1)], [2**63 - 1]),
    ],
)
def test_ids_of_images_are_numbers(source_ids, expected):
    assert formats.coco_ids(source_ids) == expected


def annotation(number, image_id, box, label):
    """COCO's, of a picture of 40 x 60."""
    ymin, xmin, ymax, xmax = np.array(box) * [40, 60, 40, 60]
    x, y, width, height = xmin, ymin, xmax - xmin, ymax - ymin
    return {
        "id": number,
        "image_id": image_id,
        "category_id": label,
        "bbox": [x, y, width, height],
        "area": width * height,
        "iscrowd": 0,
    }


@pytest.mark.parametrize(
    "source_ids, ids",
    [
        (["000000397133", "000000000042"], [397133, 42]),
        (["7", "b"], [1, 2]),
    ],
)
def test_coco_evaluates_its_results(tmp_path, capsys, source_ids, ids):
    results = [
        result((BOX, 0.9, 2), (SMALL, 0.6, 1), source_id=source_ids[0]),
        result((SMALL, 0.8, 2), source_id=source_ids[1]),
    ]
    formats.write_coco(tmp_path, iter(results), NAMES, 0.5)
    # Their own ids, in another order.
    truth = json.loads((tmp_path / "coco_images.json").read_text())
    assert [each["id"] for each in truth["images"]] == ids
    truth["images"].reverse()
    truth["annotations"] = [
        annotation(1, ids[1], SMALL, 2),
        annotation(2, ids[0], SMALL, 1),
        annotation(3, ids[0], BOX, 2),
    ]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    truth = COCO(tmp_path / "truth.json")
    found = truth.loadRes(str(tmp_path / "detections.json"))
    evaluation = COCOeval(truth, found, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capsys.readouterr()
    # AP and AR at 100 detections.
    assert evaluation.stats[[0, 8]] == pytest.approx(1)
