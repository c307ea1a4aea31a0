"""What --input means, and the names of what is written."""

import os
import pathlib

import pytest

from ssd_tf.command import UserError
from ssd_tf.command import names as file_names
from ssd_tf.datasets.catalog import Shard
from ssd_tf.detect import inputs
from ssd_tf.detect.inputs import Naming, Still, Video


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Empty files in folders, in which the test stands."""
    for name in (
        *("photos/a.jpg", "photos/b.PNG", "photos/notes.txt"),
        *("photos/deep/a.jpg", "photos/deep/er/c.gif"),
        *("other/a.jpg", "other/clip.avi", "other/a.png"),
        *("one,two.jpg", "a.jpg", "data/test-00000-of-00001.tfrecord"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "data/labels.txt").write_text("cat\n")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*values, split=None):
    sources = inputs.find(values, split, Naming())
    return [source.name for source in sources]


def test_a_folder_means_its_pictures_and_videos(tree):
    assert names("photos") == ["a.jpg", "b.PNG"]
    assert names("other") == ["a.jpg", "a.png", "clip.avi.mp4"]


def test_patterns_keep_the_folders_below_them(tree):
    assert names("photos/**/*.jpg") == ["a.jpg", "deep/a.jpg"]
    assert names("photos/*/*.*") == ["deep/a.jpg"]
    assert names("**/c.*") == ["photos/deep/er/c.gif.png"]
    assert names(str(tree / "photos" / "*.jpg")) == ["a.jpg"]


def test_a_pattern_passes_over_what_is_nothing_to_see(tree):
    assert names("photos/*") == ["a.jpg", "b.PNG"]


def test_each_of_several_folders_has_its_own(tree):
    assert names("photos", "other") == [
        *("photos/a.jpg", "photos/b.PNG"),
        *("other/a.jpg", "other/a.png", "other/clip.avi.mp4"),
    ]


def test_folders_of_one_name_have_their_own_too(tree):
    (tree / "x/photos").mkdir(parents=True)
    (tree / "x/photos/a.jpg").touch()
    assert names("photos/*.jpg", "x/photos") == [
        "photos/a.jpg",
        "photos_2/a.jpg",
    ]


def test_files_of_one_name_do_not_meet(tree):
    found = names("a.jpg", "photos/a.jpg", "other/a.jpg")
    assert found == ["a.jpg", "a_2.jpg", "a_3.jpg"]


def test_upper_and_lower_case_do_not_meet(tree):
    (tree / "photos/A.JPG").touch()
    found = names("photos")
    assert len({name.casefold() for name in found}) == len(found) == 3


def test_a_drawn_name_that_is_there_already(tree):
    (tree / "other/a.gif").touch()
    (tree / "other/a.gif.png").touch()
    assert names("other/a.g*") == ["a.gif.png", "a.gif_2.png"]


def test_source_ids_are_stems_where_they_can(tree):
    sources = inputs.find(["other"], None, Naming())
    assert [each.source_id for each in sources] == ["a", "a.png", "clip"]
    sources = inputs.find(["photos/**/*.jpg"], None, Naming())
    assert [each.source_id for each in sources] == ["a", "deep_a"]


def test_nothing_is_read_twice(tree):
    assert names("photos", "photos/*.jpg", "photos/a.jpg", "photos") == [
        "a.jpg",
        "b.PNG",
    ]


def test_a_folder_that_is_called_like_ours(tree):
    (tree / "voc").mkdir()
    (tree / "voc/a.jpg").touch()
    assert names("**/voc/*.jpg") == ["voc_/a.jpg"]


def test_no_name_leads_out_of_the_folder(tree):
    (name,) = names("photos/deep/../../oth*/*.avi")
    assert ".." not in pathlib.PurePath(name).parts
    assert Naming().source_id("../../etc/passwd") == "_.._etc_passwd"


def test_a_list_may_name_a_file_with_a_comma(tree):
    assert inputs.split_list("one,two.jpg") == ["one,two.jpg"]
    assert inputs.split_list("a.jpg, photos,") == ["a.jpg", "photos"]


@pytest.mark.parametrize("text, camera", [("webcam", 0), ("webcam:2", 2)])
def test_cameras(tree, text, camera):
    (video,) = inputs.find([text], None, Naming())
    assert (video.path, video.camera) == (None, camera)
    assert video.file == f"webcam:{camera}"
    assert video.name == f"webcam_{camera}.mp4"


def test_a_file_called_webcam_is_a_file(tree):
    (tree / "webcam").touch()
    (still,) = inputs.find(["webcam"], None, Naming())
    assert isinstance(still, Still)


def test_records_by_file_pattern_and_folder(tree):
    path = pathlib.Path("data/test-00000-of-00001.tfrecord")
    for values, split in (
        ([str(path)], None),
        (["data/*"], None),
        (["data"], "test"),
    ):
        (shard,) = inputs.find(values, split, Naming())
        assert isinstance(shard, Shard) and shard.path == path


@pytest.mark.parametrize(
    "name, is_records",
    [
        ("a.tfrecord", True),
        ("train-00001-of-00002", True),
        ("a.record-00001-of-00002", True),
        ("a.tfrecords", True),
        ("record.jpg", False),
        ("tfrecord", False),
    ],
)
def test_records_are_known_by_their_names(tree, name, is_records):
    (tree / name).touch()
    (source,) = inputs.find([name], None, Naming())
    assert isinstance(source, Shard) == is_records


@pytest.mark.parametrize(
    "value, split, message",
    [
        ("nowhere", None, "--input=nowhere: no such file or folder"),
        ("empty", None, "no image in it"),
        ("*.bmp", None, "matches no image, video or TFRecord file"),
        ("data", None, "name their split by --dataset_split_name"),
        ("data", "val", "no split 'val'; splits there: test"),
    ],
)
def test_mistakes(tree, value, split, message):
    with pytest.raises(UserError, match=message.replace("*", r"\*")):
        inputs.find([value], split, Naming())


@pytest.mark.parametrize("output_dir", ["photos", ".", "photos/deep"])
def test_an_output_folder_above_the_pictures_is_refused(tree, output_dir):
    sources = inputs.find(["photos/**/*.jpg"], None, Naming())
    with pytest.raises(UserError, match="holds the images themselves"):
        inputs.check_output_dir(output_dir, sources)


@pytest.mark.parametrize("output_dir", ["found", "photos/found", "photos_2"])
def test_other_output_folders_are_not(tree, output_dir):
    sources = inputs.find(["photos", "webcam"], None, Naming())
    inputs.check_output_dir(output_dir, sources)


def test_a_link_to_the_pictures_is_refused_too(tree):
    os.symlink("photos", "link")
    sources = inputs.find(["photos"], None, Naming())
    with pytest.raises(UserError, match="holds the images themselves"):
        inputs.check_output_dir("link", sources)


def test_folders_of_an_earlier_run_are_refused(tmp_path):
    (tmp_path / "crops" / "cat").mkdir(parents=True)
    (tmp_path / "voc").mkdir()
    (tmp_path / "a.jpg").touch()
    inputs.check_unused(tmp_path / "new", ["crops", "voc"])
    inputs.check_unused(tmp_path, ["voc"])
    with pytest.raises(UserError, match="crops: is not empty.* delete it or"):
        inputs.check_unused(tmp_path, ["voc", "crops"])


@pytest.mark.parametrize(
    "text, expected",
    [
        ("red blood cell", "red blood cell"),
        ("a/b: c", "a_b_ c"),
        ("..", "_"),
        ("\x00<>|", "____"),
        ("größe", "größe"),
    ],
)
def test_safe_names(text, expected):
    assert file_names.safe(text) == expected


def test_long_names_are_cut_with_their_suffix():
    name = file_names.safe("ü" * 300 + ".jpg")
    assert name.endswith("ü.jpg")
    assert 190 < len(os.fsencode(name)) <= file_names.MAX_BYTES


def test_file_names_that_are_no_text_are_shown(tree):
    os.mkdir(b"bytes")
    open(b"bytes/\xff.jpg", "wb").close()
    (still,) = inputs.find(["bytes"], None, Naming())
    assert still.name == "\ufffd.jpg"
    assert isinstance(still, Still) and not isinstance(still, Video)
