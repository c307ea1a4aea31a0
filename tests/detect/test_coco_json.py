"""COCO's format of results: written, read back, refused."""

import json

import evaluated
import numpy as np
import pytest

from ssd_tf.command import UserError
from ssd_tf.detect import coco_json

IDS = (3, 18, 90)


def write(path, images):
    found = ((image.source_id, image.shares) for image in images)
    coco_json.write(path, found, IDS)
    return json.loads(path.read_text())


def test_written_by_hand(tmp_path):
    found = [([10, 20, 40, 80], 0.25, 2), ([0, 0, 1, 1.5], 0.125, 1)]
    one = evaluated.image(found)._replace(source_id="42")
    assert write(tmp_path / "found.json", [one]) == [
        {
            "image_id": 42,
            "category_id": 18,
            "bbox": [20, 10, 60, 30],
            "score": 0.25,
        },
        {
            "image_id": 42,
            "category_id": 3,
            "bbox": [0, 0, 1.5, 1],
            "score": 0.125,
        },
    ]


@pytest.mark.parametrize("name", ["2007_000027", "007", "", "a/b"])
def test_ids_that_are_no_numbers_stay_text(tmp_path, name):
    one = evaluated.image([([0, 0, 9, 9], 1, 1)])._replace(source_id=name)
    assert write(tmp_path / "found.json", [one])[0]["image_id"] == name


def test_read_is_the_inverse_of_write(tmp_path):
    images = evaluated.random_images(0)
    write(tmp_path / "found.json", images)
    back = coco_json.read(tmp_path / "found.json", IDS)
    for image in images:
        if not len(image.found.scores):
            assert image.source_id not in back
            continue
        found = back[image.source_id]
        # Boxes have three decimals in both.
        np.testing.assert_allclose(found.boxes, image.found.boxes, atol=1e-9)
        np.testing.assert_array_equal(found.classes, image.found.classes)
        np.testing.assert_allclose(found.scores, image.found.scores, rtol=1e-8)


def test_pycocotools_reads_it(tmp_path):
    from pycocotools.coco import COCO

    images = evaluated.random_images(0)
    rows = write(tmp_path / "found.json", images)
    truth = COCO()
    truth.dataset = {
        "images": [{"id": int(image.source_id)} for image in images],
        "categories": [{"id": number} for number in IDS],
        "annotations": [],
    }
    truth.createIndex()
    loaded = truth.loadRes(str(tmp_path / "found.json"))
    assert len(loaded.getAnnIds()) == len(rows)


def test_no_detections_are_an_empty_list(tmp_path):
    assert write(tmp_path / "found.json", [evaluated.image()]) == []
    assert coco_json.read(tmp_path / "found.json", IDS) == {}


GOOD = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "cannot be read"),
        ('{"images": []}', "expected a list"),
        ("3", "cannot be read"),
        ('{"class_names": [], "images": [{"file": "a"}]}', "is no file of det"),
        (
            json.dumps([GOOD, {**GOOD, "bbox": [1, 2, 3]}]),
            "detection 1 is none",
        ),
        (json.dumps([{**GOOD, "score": float("nan")}]), "0 is none.*NaN"),
        (json.dumps([{**GOOD, "bbox": [0, 0, 1e999, 1]}]), "infinity"),
        (json.dumps([{**GOOD, "score": "high"}]), "detection 0 is none"),
        (json.dumps([{"score": 1}]), "category_id"),
        (json.dumps([7]), "detection 0 is none"),
        (json.dumps([{**GOOD, "category_id": 4}]), "category 4; .* 3, 18, 90"),
        (json.dumps([{**GOOD, "category_id": "3"}]), "category '3'; .* 3, 18"),
        (json.dumps([{**GOOD, "bbox": "1234"}]), "0 is none.*no list"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, content, message):
    path = tmp_path / "found.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        coco_json.read(path, IDS)
    assert str(path) in str(caught.value)


def test_the_per_image_json_of_detect_is_read(tmp_path):
    path = tmp_path / "detections.json"
    entry = {"class": 2, "name": "dog", "score": 0.5, "box": [0, 0.1, 0.5, 1]}
    image = {"file": "in/a.jpg", "detections": [entry]}
    content = {"class_names": ["cat", "dog"], "images": [image]}
    path.write_text(json.dumps(content))
    assert coco_json.class_names(path) == ("cat", "dog")
    (name, stored), *others = coco_json.read(path).items()
    assert name == "a" and not others
    found = coco_json.shares(stored, 40, 80)
    np.testing.assert_array_equal(found.boxes, [[0, 0.1, 0.5, 1]])
    np.testing.assert_array_equal(found.pixel_boxes, [[0, 8, 20, 80]])
    assert found.classes.tolist() == [2] and found.scores.tolist() == [0.5]
    assert len(coco_json.shares(None, 40, 80)) == 0
