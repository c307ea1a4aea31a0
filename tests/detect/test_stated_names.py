"""Whose number a class has: the names that files of detectors carry."""

import json
import zipfile

import onnx
import pytest
import voc_tree
from onnx_detector import onnx_file
from processes import error_of, finish, start

from ssd_tf.command import UserError
from ssd_tf.datasets import ground_truth, labels
from ssd_tf.detect import description, detectors

NAMES = ("zebra", "ant", "dog")


def with_label_map(path, content, name="labelmap.txt"):
    """A .tflite file as far as its names go."""
    path.write_bytes(b"TFL3, as it were" * 20)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, content)
    return path


def test_tflite_has_them_in_the_archive_behind_it(tmp_path):
    path = with_label_map(tmp_path / "m.tflite", "zebra\nant\ndog\n")
    assert description.class_names(path) == NAMES
    assert detectors.class_names(path) == NAMES
    path = with_label_map(tmp_path / "n.tflite", "zebra\n", "other.txt")
    assert description.class_names(path) is None
    # As of COCO's 80 names for 90 numbers.
    path = with_label_map(tmp_path / "o.tflite", "zebra\n???\n\ndog\n???\n")
    expected = ("zebra", "unused_2", "unused_3", "dog", "unused_5")
    assert description.class_names(path) == expected
    assert expected[1].startswith(labels.UNUSED)


def test_a_damaged_label_map_is_told(tmp_path):
    path = with_label_map(tmp_path / "m.tflite", b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="m.tflite: its labelmap.txt cannot"):
        description.class_names(path)


def test_onnx_has_them_in_its_metadata(tmp_path):
    path = onnx_file(tmp_path / "m.onnx", [1, 8, 8, 3])
    assert description.class_names(path) is None
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"class_names": "\n".join(NAMES)})
    onnx.save(model, path)
    assert description.class_names(path) == NAMES
    assert detectors.class_names(path) == NAMES


def test_a_file_that_is_not_there(tmp_path):
    for name in ("a.json", "a.onnx", "a.tflite"):
        with pytest.raises(UserError, match="no such file"):
            detectors.class_names(tmp_path / name)


def test_labels_beside_a_file(tmp_path):
    path = tmp_path / "found.json"
    path.write_text("[]")
    assert description.class_names(path) is None
    assert description.labels_beside(path) is None
    (tmp_path / "labels.txt").write_text("cat\n")
    assert description.labels_beside(path) == tmp_path / "labels.txt"


@pytest.fixture
def tree(tmp_path):
    """Two images of a dog and a zebra; in train there is an ant too."""
    root = tmp_path / "tree"
    for name in "ab":
        objects = ("dog", (1, 1, 20, 20)), ("zebra", (31, 21, 60, 40))
        voc_tree.add(root, name, *(voc_tree.item(*each) for each in objects))
    voc_tree.add(root, "c", voc_tree.item("ant"))
    voc_tree.add_split(root, "test", "ab")
    voc_tree.add_split(root, "train", "abc")
    return root


def perfect(path, numbers):
    """Writes the detections of a detector with these category ids."""
    boxes = {"dog": [0, 0, 20, 20], "zebra": [30, 20, 30, 20]}
    rows = [
        {
            "image_id": image,
            "category_id": numbers[name],
            "bbox": box,
            "score": 0.9,
        }
        for image in "ab"
        for name, box in boxes.items()
    ]
    path.write_text(json.dumps(rows))
    return path


def evaluate(tree, found, *flags):
    """The command's arguments."""
    return (
        "eval_ssd.py",
        f"--dataset_dir={tree}",
        f"--checkpoint_path={found}",
        f"--eval_dir={tree.parent / 'eval'}",
        "--bootstrap=0",
        *flags,
    )


def mean(tree):
    metrics = json.loads((tree.parent / "eval" / "metrics.json").read_text())
    return metrics["AP_VOC12/mAP"]


def test_a_tree_is_numbered_by_the_detector(tree, tmp_path):
    found = perfect(tmp_path / "found.json", {"zebra": 1, "dog": 3})
    (tmp_path / "own.txt").write_text("\n".join(NAMES))
    # Without names nobody knows what 1 and 3 are.
    error = error_of(*evaluate(tree, found))
    assert f"{found}: does not name its classes" in error
    assert "labels.txt by --labels" in error
    flag = f"--labels={tmp_path / 'own.txt'}"
    finish(start(*evaluate(tree, found, flag, "--save_detections")))
    assert mean(tree) == 1
    # What was saved says by itself whose the numbers are.
    saved = tmp_path / "eval" / "detections.json"
    assert saved.with_name("labels.txt").read_text() == "zebra\nant\ndog\n"
    assert {x["category_id"] for x in json.loads(saved.read_text())} == {1, 3}
    output = finish(start(*evaluate(tree, saved)))
    assert f"class names: {saved.with_name('labels.txt')}" in output
    assert mean(tree) == 1


def test_labels_are_for_files(tree, tmp_path):
    (tmp_path / "own.txt").write_text("cat\n")
    flag = f"--labels={tmp_path / 'own.txt'}"
    error = error_of(*evaluate(tree, tmp_path, flag))
    assert f"{flag}: only for a .tflite, .onnx or .json" in error
    found = perfect(tmp_path / "found.json", {"zebra": 1, "dog": 3})
    error = error_of(*evaluate(tree, found, "--labels=/nowhere.txt"))
    assert "/nowhere.txt: class names cannot be read" in error


def test_numbers_that_no_class_has_are_not_missed_in_coco_files(tmp_path):
    path = tmp_path / "truth.json"
    image = {"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}
    categories = [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}]
    content = {"images": [image], "annotations": [], "categories": categories}
    path.write_text(json.dumps(content))
    truth = ground_truth.open_split(
        path, "test", class_names=("cat", "unused_2", "dog")
    )
    assert truth.class_names == ("cat", "unused_2", "dog")
    assert truth.category_ids == (1, -2, 3)
