"""COCO's annotation files by hand: as they should be, and as they are."""

import json

import numpy as np
import pytest
import voc_tree

from ssd_tf.command import UserError
from ssd_tf.config.evaluation import EvalParams
from ssd_tf.datasets import ground_truth
from ssd_tf.evaluation import run


def records_of(truth, **options):
    return list(truth.read(**options).as_numpy_iterator())


def annotations(**changes):
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}],
        "categories": [{"id": 2, "name": "cat"}],
        "annotations": [
            {
                "id": 5,
                "image_id": 1,
                "category_id": 2,
                "bbox": [6, 4, 30, 20],
                "area": 123.5,
                "iscrowd": 1,
            }
        ],
    }
    return content | changes


def test_a_coco_annotation_by_hand(tmp_path):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(annotations()))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(voc_tree.picture())
    (found,) = records_of(ground_truth.open_split(path, "test"))
    np.testing.assert_allclose(
        found["boxes"], [[0.1, 0.1, 0.6, 0.6]], atol=1e-7
    )
    assert found["crowd"].tolist() == [True]
    assert found["area"].tolist() == [123.5]
    assert found["labels"].tolist() == [1]
    assert found["image"] == voc_tree.picture()


def test_bad_boxes_of_every_image_of_a_coco_file_are_counted(tmp_path):
    content = annotations()
    content["images"].append({**content["images"][0], "id": 9})
    flat = {**content["annotations"][0], "bbox": [6, 4, 30, 0]}
    content["annotations"] = [flat, {**flat, "image_id": 9}]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    truth = ground_truth.open_split(path, "test")
    assert len(records_of(truth, with_images=False)) == 2
    assert [str(x).partition(" box")[0] for x in truth.problems.values()] == [
        f"{path}: image 1:",
        f"{path}: image 9:",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "cannot be read"),
        ("[]", "no list 'images'"),
        (annotations(annotations=None), "no list 'annotations'"),
        (annotations(images=[]), "annotation of no image"),
        (annotations(annotations=[], images=[]), "no image in split"),
        (annotations(categories=[{"id": 1, "name": "cat"}]), "category 2"),
        (annotations(images=annotations()["images"] * 2), "two images"),
        (
            annotations(images=[{**annotations()["images"][0], "height": 0}]),
            "image 1: .* 0 and 60",
        ),
        (annotations(categories=[{"id": 2, "name": "mAP"}]), "called mAP"),
        (annotations(categories=[{"id": 2}]), "without id or name"),
        (
            annotations(categories=[{"id": k, "name": "cat"} for k in (2, 3)]),
            "two categories have the name 'cat'",
        ),
        (
            annotations(categories=[{"id": 2, "name": x} for x in "ab"]),
            "two categories have the id 2",
        ),
        (
            annotations(images=[{**annotations()["images"][0], "id": None}]),
            "image id None; expected",
        ),
        (
            annotations(
                images=[
                    {**annotations()["images"][0], "id": x} for x in (1, "1")
                ]
            ),
            "two images have one id",
        ),
        (
            annotations(images=[{"id": 1, "file_name": "a.jpg"}]),
            "image 1: a field is missing",
        ),
        (
            annotations(
                annotations=[
                    {**annotations()["annotations"][0], "iscrowd": "0"}
                ]
            ),
            "iscrowd is '0', expected 0 or 1",
        ),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_coco_files_that_are_none(tmp_path, content, message):
    path = tmp_path / "truth.json"
    path.write_text(
        content if isinstance(content, str) else json.dumps(content)
    )
    with pytest.raises(UserError, match=message) as caught:
        ground_truth.open_split(path, "test")
    assert str(path) in str(caught.value)


def test_coco_files_without_names_of_images(tmp_path):
    content = annotations()
    del content["images"][0]["file_name"]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    truth = ground_truth.open_split(path, "test")
    (found,) = records_of(truth, with_images=False)
    assert found["labels"].tolist() == [1]
    assert records_of(truth) == []
    (problem,) = truth.problems.values()
    assert "image 1 has no file_name" in str(problem)


def test_ids_of_images_may_be_numbers_and_text(tmp_path):
    content = annotations()
    (image,), (row,) = content["images"], content["annotations"]
    content["images"] = [{**image, "id": x} for x in ("b", 12, "a", 3)]
    # One tool writes its numbers as text in one of the two tables.
    content["annotations"] = [{**row, "image_id": x} for x in ("12", 12, "a")]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    found = records_of(ground_truth.open_split(path, "test"), with_images=False)
    assert [x["source_id"] for x in found] == [b"3", b"12", b"a", b"b"]
    assert [len(x["labels"]) for x in found] == [0, 2, 1, 0]


@pytest.fixture
def coco_folder(tmp_path):
    """As COCO unpacks: three files of a split, images in a folder of it."""
    (tmp_path / "annotations").mkdir()
    for name in ("instances", "person_keypoints", "captions"):
        file = tmp_path / "annotations" / f"{name}_val2017.json"
        file.write_text(json.dumps(annotations()))
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "a.jpg").write_bytes(voc_tree.picture())
    return tmp_path


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("", "val2017"),
        ("", "instances_val2017"),
        # The flag's default, which means nothing to a file.
        ("annotations/instances_val2017.json", "test"),
        ("annotations/instances_val2017.json", "val2017"),
    ],
)
def test_a_real_folder_of_coco(coco_folder, path, split):
    truth = ground_truth.open_split(coco_folder / path, split)
    assert truth.source["split"] == "instances_val2017"
    (found,) = records_of(truth)
    assert found["image"] == voc_tree.picture()
    assert not truth.problems


def test_images_that_are_nowhere_are_told_with_the_flag(coco_folder):
    (coco_folder / "val2017" / "a.jpg").unlink()
    file = coco_folder / "annotations" / "instances_val2017.json"
    truth = ground_truth.open_split(file, "test")
    assert records_of(truth) == []
    with pytest.raises(UserError) as caught:
        run.finish([], truth, None, EvalParams(), coco_folder, [])
    message = str(caught.value)
    assert f"{coco_folder / 'val2017' / 'a.jpg'}" in message
    assert "--image_dir" in message
