"""The VOC reader and writer."""

import io

import numpy as np
import pytest
import voc_tree
from PIL import Image

from ssd_tf.command import UserError
from ssd_tf.datasets.annotation import Annotation, Problem
from ssd_tf.datasets.formats import voc


def read_one(root, split=voc.ALL):
    """The only annotation of a tree, which has no problems."""
    [annotation] = voc.read([root], split)
    assert isinstance(annotation, Annotation)
    return annotation


def read_problem(root, split=voc.ALL):
    """The only problem of a tree."""
    [problem] = (
        found for found in voc.read([root], split) if isinstance(found, Problem)
    )
    return problem


def test_pixels_count_from_one_and_include_both_corners(tmp_path):
    voc_tree.add(
        tmp_path,
        "a",
        voc_tree.item(box=(1, 1, 10, 10)),
        voc_tree.item(box=(11, 21, 20, 40)),
        size=(40, 20),
        image=voc_tree.picture(40, 20),
    )
    annotation = read_one(tmp_path)
    np.testing.assert_array_equal(
        annotation.boxes, [[0, 0, 0.25, 0.5], [0.5, 0.5, 1, 1]]
    )
    assert annotation.boxes.dtype == np.float32
    assert (annotation.height, annotation.width) == (40, 20)


def test_a_zero_makes_the_file_count_from_zero(tmp_path):
    voc_tree.add(
        tmp_path,
        "a",
        voc_tree.item(box=(0, 5, 10, 10)),
        voc_tree.item(box=(10, 10, 20, 40)),
        size=(40, 20),
    )
    # Another file of the same tree is not affected.
    voc_tree.add(
        tmp_path, "b", voc_tree.item(box=(11, 11, 20, 40)), size=(40, 20)
    )
    note, a, b = voc.read([tmp_path], "all")
    assert note.kind == "zero_based" and note.file.endswith("a.xml")
    np.testing.assert_array_equal(
        a.boxes, [[0.125, 0, 0.25, 0.5], [0.25, 0.5, 1, 1]]
    )
    np.testing.assert_array_equal(b.boxes, [[0.25, 0.5, 1, 1]])


def test_equal_corners_have_no_extent(tmp_path):
    voc_tree.add(tmp_path, "a", voc_tree.item(box=(10, 5, 10, 8)))
    ymin, xmin, ymax, xmax = read_one(tmp_path).boxes[0]
    assert xmin == xmax and ymin < ymax


def test_float_coordinates(tmp_path):
    voc_tree.add(
        tmp_path,
        "a",
        voc_tree.item(box=("1.5", "2.25", "30.0", " 20.5 ")),
    )
    np.testing.assert_allclose(
        read_one(tmp_path).boxes,
        [[1.25 / 40, 0.5 / 60, 20.5 / 40, 0.5]],
        rtol=1e-6,
    )


def test_flags_are_read_and_may_be_missing(tmp_path):
    """An Element without children is false; the port took it for absent."""
    voc_tree.add(
        tmp_path,
        "a",
        voc_tree.item(difficult=1, truncated=0, pose="Left"),
        voc_tree.item(difficult=0, truncated=1),
        voc_tree.item(),
        voc_tree.item(difficult=" 1 ", truncated="Unspecified"),
    )
    annotation = read_one(tmp_path)
    assert annotation.difficult.tolist() == [True, False, False, True]
    assert annotation.truncated.tolist() == [False, True, False, False]
    assert annotation.poses == ("Left",) + ("Unspecified",) * 3


def test_missing_size_comes_from_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    voc_tree.add(
        tmp_path,
        "a",
        voc_tree.item(box=(1, 1, 20, 30)),
        size=None,
        image=voc_tree.picture(40, 60, exif=exif),
    )
    annotation = read_one(tmp_path)
    assert (annotation.height, annotation.width) == (60, 40)
    np.testing.assert_array_equal(annotation.boxes, [[0, 0, 0.5, 0.5]])


def test_zero_size_counts_as_missing(tmp_path):
    voc_tree.add(tmp_path, "a", voc_tree.item(), size=(0, 0))
    assert read_one(tmp_path).height == 40


def test_objects_without_boxes_or_numbers_are_nan(tmp_path):
    voc_tree.add(
        tmp_path,
        "a",
        "<object><name>cat</name></object>",
        voc_tree.item(box=("left", 1, 5, 5)),
    )
    boxes = read_one(tmp_path).boxes
    assert np.isnan(boxes[0]).all() and np.isnan(boxes[1]).any()


def test_parts_of_an_object_are_no_objects(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    voc_tree.add(
        tmp_path, "a", voc_tree.item().replace("</object>", f"{part}</object>")
    )
    assert read_one(tmp_path).names == ("cat",)


def test_image_without_objects(tmp_path):
    voc_tree.add(tmp_path, "a")
    assert read_one(tmp_path).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    "image_name, stated",
    [
        ("a.jpg", "a.jpg"),
        ("a.JPG", "a.jpg"),
        ("a.PNG", None),
        ("a.webp", "renamed.jpg"),
        ("other.jpeg", "other.jpeg"),
        ("other.jpeg", "C:\\pictures\\other.jpeg"),
        ("other.jpeg", "/home/me/other.jpeg"),
        ("other.jpeg", "other"),
        ("other.jpeg", "other.png"),
    ],
)
def test_image_is_found(tmp_path, image_name, stated):
    voc_tree.add(tmp_path, "a", image_name=image_name, stated=stated)
    assert read_one(tmp_path).filename == image_name


def test_the_stem_pairs_files_and_filename_chooses_among_suffixes(tmp_path):
    voc_tree.add(tmp_path, "a", image_name="a.png", stated="b.jpg")
    voc_tree.add(tmp_path, "b")
    a, b = voc.read([tmp_path], "all")
    assert (a.filename, b.filename) == ("a.png", "b.jpg")
    voc_tree.add(tmp_path, "a", image_name="a.jpg", stated="a.png")
    a, b = voc.read([tmp_path], "all")
    assert a.filename == "a.png"


def test_splits_leave_out_per_class_lists(tmp_path):
    for name in ("a", "b", "c"):
        voc_tree.add(tmp_path, name)
    voc_tree.add_split(tmp_path, "train", ["c", "a"])
    voc_tree.add_split(tmp_path, "val", ["b"])
    voc_tree.add_split(tmp_path, "cat_train", ["c -1", "a  1"])
    assert voc.splits([tmp_path]) == ["train", "val"]
    ids = [found.source_id for found in voc.read([tmp_path], "train")]
    assert ids == ["c", "a"]
    ids = [found.source_id for found in voc.read([tmp_path], "cat_train")]
    assert ids == ["c", "a"]


def test_names_with_blanks(tmp_path):
    voc_tree.add(tmp_path, "my cat (2)")
    voc_tree.add_split(tmp_path, "train", ["my cat (2)", ""])
    assert read_one(tmp_path, "train").source_id == "my cat (2)"


def test_union_of_roots(tmp_path):
    old, new = tmp_path / "dev" / "VOC2007", tmp_path / "dev" / "VOC2012"
    voc_tree.add(old, "000001", voc_tree.item("cat"))
    voc_tree.add(old, "same", voc_tree.item("cat"))
    voc_tree.add(new, "2008_1", voc_tree.item("dog"))
    voc_tree.add(new, "same", voc_tree.item("dog"))
    voc_tree.add_split(old, "trainval", ["000001", "same"])
    voc_tree.add_split(old, "test", ["000001"])
    voc_tree.add_split(new, "trainval", ["2008_1", "same"])
    assert voc.splits([old, new]) == ["test", "trainval"]
    found = list(voc.read([old, new], "trainval"))
    notes = [item for item in found if isinstance(item, Problem)]
    assert [note.kind for note in notes] == ["renamed"]
    ids = [a.source_id for a in found if isinstance(a, Annotation)]
    assert ids == ["000001", "same", "2008_1", "dev_VOC2012_same"]
    annotation, note = voc.read([old, new], "test")
    assert annotation.names == ("cat",)
    assert note.kind == "split_not_here" and note.file == str(new)
    assert not note.is_error


def test_missing_xml(tmp_path):
    voc_tree.add(tmp_path, "a")
    voc_tree.add_split(tmp_path, "train", ["a", "gone"])
    problem = read_problem(tmp_path, "train")
    assert problem.kind == "missing_xml" and "gone.xml" in problem.file


def test_name_listed_twice(tmp_path):
    voc_tree.add(tmp_path, "a")
    voc_tree.add_split(tmp_path, "train", ["a", "a"])
    assert read_problem(tmp_path, "train").kind == "listed_twice"


def test_missing_image(tmp_path):
    voc_tree.add(tmp_path, "a", image=b"")
    problem = read_problem(tmp_path)
    assert (problem.kind, problem.action) == ("missing_image", "skipped")


@pytest.mark.parametrize(
    "text",
    [
        "<annotation><object>",
        "",
        "<html></html>",
        '<?xml version="1.0" encoding="klingon"?><annotation/>',
        '<!DOCTYPE a [<!ENTITY b "boom">]><annotation>&b;</annotation>',
    ],
)
def test_malformed_xml(tmp_path, text):
    voc_tree.add(tmp_path, "a")
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    assert read_problem(tmp_path).kind == "malformed_xml"


def test_unreadable_header_without_stated_size(tmp_path):
    voc_tree.add(tmp_path, "a", size=None, image=b"no image")
    problem = read_problem(tmp_path)
    assert problem.kind == "unreadable_image" and "a.jpg" in problem.file


def test_user_mistakes(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        list(voc.read([tmp_path / "none"], "train"))
    voc_tree.add(tmp_path / "VOC2007", "a")
    with pytest.raises(UserError, match="Annotations.*mean .*VOC2007"):
        voc.splits([tmp_path])
    with pytest.raises(UserError, match="no split 'train'; there are all"):
        list(voc.read([tmp_path / "VOC2007"], "train"))
    voc_tree.add_split(tmp_path / "VOC2007", "val", ["a"])
    with pytest.raises(UserError, match="no split 'all'; there are val"):
        list(voc.read([tmp_path / "VOC2007"], "all"))


def test_what_is_written_is_read_back(tmp_path):
    """Boxes of whole pixels and any other float32 ones, to the last bit."""
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 0.4, (20, 4)) + [0, 0, 0.5, 0.5]
    boxes[:10] = np.round(boxes[:10] * [37, 91, 37, 91]) / [37, 91, 37, 91]
    written = Annotation(
        source_id="img 1",
        origin="test",
        height=37,
        width=91,
        boxes=boxes,
        names=["a & b", "<c>", '"d"', "é"] * 5,
        difficult=rng.random(20) < 0.5,
        truncated=rng.random(20) < 0.5,
        poses=["Left", "Unspecified"] * 10,
        image_bytes=voc_tree.picture(37, 91, image_format="PNG"),
    )
    voc.write(tmp_path, "train", [written])
    read = read_one(tmp_path, "train")
    for field in ("boxes", "difficult", "truncated"):
        np.testing.assert_array_equal(
            getattr(read, field), getattr(written, field)
        )
    for field in ("source_id", "height", "width", "names", "poses"):
        assert getattr(read, field) == getattr(written, field)
    assert read.read_image() == written.image_bytes
    assert read.filename == "img 1.png"


def test_whole_pixels_are_written_as_such(tmp_path):
    written = Annotation(
        "a",
        "test",
        10,
        20,
        [[0, 0, 0.5, 0.5]],
        ["cat"],
        image_bytes=voc_tree.picture(10, 20),
    )
    voc.write(tmp_path, "train", [written])
    text = (tmp_path / "Annotations" / "a.xml").read_text()
    for tag in ("<xmin>1<", "<ymin>1<", "<xmax>10<", "<ymax>5<"):
        assert tag in text
    image = Image.open(io.BytesIO(read_one(tmp_path, "train").read_image()))
    assert image.format == "JPEG"


def test_writer_refuses_ids_that_are_no_file_names(tmp_path):
    annotation = Annotation("../a", "x.json", 1, 1, [], [], image_bytes=b"")
    with pytest.raises(ValueError, match="x.json.*'../a'"):
        voc.write(tmp_path, "train", [annotation])
