"""Records, VOC trees and COCO files give the same ground truth."""

import shutil

import coco_tree
import numpy as np
import pytest
import voc_tree

from ssd_tf.command import UserError
from ssd_tf.datasets import catalog, ground_truth
from ssd_tf.datasets.formats import coco


@pytest.fixture(scope="module")
def raw(shapes_data):
    """The VOC tree behind the records."""
    return shapes_data.parent / "raw"


@pytest.fixture(scope="module")
def names(shapes_data):
    return tuple(catalog.class_names(shapes_data))


@pytest.fixture(scope="module")
def coco_file(raw, names, tmp_path_factory):
    return coco_tree.write(tmp_path_factory.mktemp("coco"), raw, "test", names)


def records_of(truth, **options):
    return list(truth.read(**options).as_numpy_iterator())


def test_all_three_kinds_say_the_same(shapes_data, raw, names, coco_file):
    opened = [
        ground_truth.open_split(shapes_data, "test"),
        ground_truth.open_split(raw, "test"),
        ground_truth.open_split(
            coco_file.parent.parent,
            "test",
            image_dir=raw / "JPEGImages",
            class_names=names,
        ),
    ]
    assert [each.kind for each in opened] == ["records", "voc", "coco"]
    assert all(each.class_names == names for each in opened)
    assert all(each.num_images == 12 for each in opened)
    for first, *others in zip(*map(records_of, opened), strict=True):
        for other in others:
            assert other["image"] == first["image"]
            np.testing.assert_array_equal(other["labels"], first["labels"])
            np.testing.assert_array_equal(other["crowd"], first["crowd"])
            # Shares of the image in float32.
            np.testing.assert_allclose(
                other["boxes"], first["boxes"], atol=2e-7
            )
            for side in ("height", "width"):
                assert other[side] == first[side] > 0
        assert others[0]["source_id"] == first["source_id"]
    for each in opened:
        assert len(each.source["manifest_sha256"]) == 64


def test_coco_keeps_its_ids_whatever_the_order_of_the_classes(names, coco_file):
    truth = ground_truth.open_split(coco_file, "any")
    assert truth.class_names == names[::-1]  # by rising id
    assert truth.category_ids == tuple(
        coco_tree.FIRST_ID + coco_tree.STEP * k for k in range(len(names))
    )
    ours = ground_truth.open_split(coco_file, "any", class_names=names)
    assert ours.category_ids == truth.category_ids[::-1]
    assert truth.source["split"] == "instances_test"
    for a, b in zip(
        records_of(truth, with_images=False),
        records_of(ours, with_images=False),
        strict=True,
    ):
        np.testing.assert_array_equal(
            [truth.class_names[k - 1] for k in a["labels"]],
            [names[k - 1] for k in b["labels"]],
        )
    ids = [int(x["source_id"]) for x in records_of(ours, with_images=False)]
    assert ids == sorted(ids)


def test_images_need_not_be_there_where_they_are_not_read(coco_file):
    truth = ground_truth.open_split(coco_file, "test")
    assert len(records_of(truth, with_images=False)) == 12
    assert truth.problems == {}
    assert records_of(truth) == []
    assert {x.kind for x in truth.problems.values()} == {"unreadable_image"}
    assert len(truth.problems) == 12


def test_a_tree_without_its_images(raw, names, tmp_path):
    for folder in ("Annotations", "ImageSets"):
        shutil.copytree(raw / folder, tmp_path / folder)
    (tmp_path / "JPEGImages").mkdir()
    here, there = (
        ground_truth.open_split(root, "test", class_names=names)
        for root in (tmp_path, raw)
    )
    found, expected = (records_of(x, with_images=False) for x in (here, there))
    assert len(found) == here.num_images == 12
    assert here.problems == {}
    for one, other in zip(found, expected, strict=True):
        for key in other:
            np.testing.assert_array_equal(one[key], other[key])
    # Where they are read, they are missed one by one.
    assert records_of(here) == []
    assert len(here.problems) == 12
    for problem in here.problems.values():
        assert problem.kind == "unreadable_image"
        assert problem.file.startswith(str(tmp_path / "JPEGImages"))


def test_an_image_without_size_has_to_be_there(tmp_path):
    voc_tree.add(tmp_path, "a", voc_tree.item("cat"), image=b"", size=None)
    voc_tree.add(tmp_path, "b", voc_tree.item("cat"), size=None)
    truth = ground_truth.open_split(tmp_path, "all", class_names=["cat"])
    (found,) = records_of(truth, with_images=False)
    assert found["source_id"] == b"b"
    assert (found["height"], found["width"]) == (40, 60)
    assert [x.kind for x in truth.problems.values()] == ["missing_image"]


@pytest.mark.parametrize("kind", ["records", "voc"])
def test_only_some_images(shapes_data, raw, kind):
    truth = ground_truth.open_split(
        shapes_data if kind == "records" else raw, "test"
    )
    everything = records_of(truth)
    ids = {everything[k]["source_id"].decode() for k in (2, 7)}
    chosen = records_of(truth, only=ids)
    assert [x["image"] for x in chosen] == [
        everything[k]["image"] for k in (2, 7)
    ]
    assert records_of(truth, only=set()) == []


def test_what_is_dropped_is_named(tmp_path):
    voc_tree.add(tmp_path, "good", voc_tree.item("cat"), voc_tree.item("emu"))
    voc_tree.add(tmp_path, "bad", voc_tree.item("cat"), image=b"no picture")
    voc_tree.add(
        tmp_path, "thin", voc_tree.item("cat", (5, 5, 5, 20)), size=(40, 60)
    )
    truth = ground_truth.open_split(tmp_path, "all", class_names=["cat"])
    found = records_of(truth)
    assert [x["source_id"] for x in found] == [b"good", b"thin"]
    assert [len(x["labels"]) for x in found] == [1, 0]
    records_of(truth)  # once more: nothing is named twice
    assert sorted(x.kind for x in truth.problems.values()) == [
        "unknown_class",
        "unreadable_image",
        "zero_area_box",
    ]


def test_folders_of_coco(tmp_path, coco_file):
    folder = coco_file.parent.parent
    assert coco.find(folder, "test") == coco_file
    assert coco.find(folder, "instances_test") == coco_file
    assert coco.splits([folder]) == ["instances_test"]
    with pytest.raises(UserError, match="0 files for split 'val'.*instances_"):
        coco.find(folder, "val")
    with pytest.raises(UserError, match="no annotations/"):
        coco.find(tmp_path, "val")


def test_classes_that_do_not_fit_are_refused(shapes_data, raw, coco_file):
    with pytest.raises(UserError, match=r"detector \(emu\); there are"):
        ground_truth.open_split(raw, "test", class_names=["emu"])
    with pytest.raises(UserError, match="its classes are .* those of the"):
        ground_truth.open_split(shapes_data, "test", class_names=["cat"])
    with pytest.raises(UserError, match="no category 'emu'"):
        ground_truth.open_split(coco_file, "test", class_names=["emu"])
