"""Class names: labels.txt and label_map.pbtxt."""

import pytest

from ssd_tf.command import UserError
from ssd_tf.datasets import labels

AWKWARD = ["cat", "traffic light", "l'été", 'say "no"', "back\\slash", "a}b"]


def test_known_lists():
    assert len(labels.VOC_LABELS) == 20 and len(labels.COCO_LABELS) == 80
    assert labels.VOC_LABELS[0] == "aeroplane"
    assert labels.VOC_LABELS[14] == "person"
    assert labels.COCO_LABELS[0] == "person"
    assert labels.COCO_LABELS[9] == "traffic light"
    assert labels.COCO_LABELS[79] == "toothbrush"


def test_labels_file_round_trip(tmp_path):
    labels.write_labels(tmp_path / "labels.txt", AWKWARD)
    assert labels.read(tmp_path / "labels.txt") == AWKWARD
    text = (tmp_path / "labels.txt").read_text("utf-8")
    assert text.splitlines()[1] == "traffic light"


def test_label_map_round_trip(tmp_path):
    labels.write_label_map(tmp_path / "map.pbtxt", AWKWARD)
    assert labels.read(tmp_path / "map.pbtxt") == AWKWARD


def test_label_map_text(tmp_path):
    labels.write_label_map(tmp_path / "map.pbtxt", ["cat"])
    text = (tmp_path / "map.pbtxt").read_text("utf-8")
    assert text == "item {\n  id: 1\n  name: 'cat'\n}\n"


def test_foreign_label_map(tmp_path):
    """Any order, gaps, comments, double quotes, display names."""
    path = tmp_path / "map.pbtxt"
    path.write_text(
        '# the classes\nitem { name: "/m/04" id: 4 display_name: "dog" }\n'
        "item: {\n  id: 0\n  name: 'background'\n}\n"
        "item {\n  id: 1  # first\n  name: 'cat'\n}\n"
        "item{id:2 name:'cow'}\n"
    )
    assert labels.read(path) == ["cat", "cow", "unused_3", "dog"]


def test_windows_file(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n\r\n")
    assert labels.read(path) == ["cat", "dog"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no class name"),
        ("\n\n", "no class name"),
        ("cat\n\ndog\n", "name 2, '', is empty"),
        ("cat\ndog\ncat\n", "name 3, 'cat', is there twice"),
        ("background\ncat\n", "name 1, 'background', is no class"),
    ],
)
def test_bad_names_are_refused_with_the_file(tmp_path, text, message):
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        labels.read(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "item { id: one name: 'cat' }",
        "item { name: 'cat' }",
        "item { id: 1 name: 'cat' } item { id: 1 name: 'dog' }",
        "item { id: 1 }",
        "nothing",
    ],
)
def test_bad_label_maps_are_refused(tmp_path, text):
    path = tmp_path / "map.pbtxt"
    path.write_text(text)
    with pytest.raises(UserError, match="map.pbtxt"):
        labels.read(path)


def test_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        labels.read(tmp_path / "none.txt")
