"""Annotations and the validation of their boxes."""

import numpy as np
import pytest

from ssd_tf.datasets.annotation import Annotation, Problem, clean

HEIGHT, WIDTH = 100, 200


def annotate(boxes_px, names=None, **fields):
    """An annotation of a 200 x 100 image from boxes in its pixels."""
    boxes = np.array(boxes_px, np.float64).reshape(-1, 4)
    fields = {"height": HEIGHT, "width": WIDTH} | fields
    return Annotation(
        source_id="one",
        origin="one.xml",
        boxes=boxes / ([fields["height"], fields["width"]] * 2),
        names=names or ["cat"] * len(boxes),
        image_bytes=b"",
        **fields,
    )


def clean_px(boxes_px, names=None, **fields):
    """Cleans; returns the boxes in pixels and (kind, action, box) triples."""
    cleaned, problems = clean(
        annotate(boxes_px, names, **fields), ["cat", "dog"], HEIGHT, WIDTH
    )
    boxes = cleaned.boxes * ([HEIGHT, WIDTH] * 2)
    return boxes, [(p.kind, p.action, p.box) for p in problems]


def test_sound_boxes_stay_as_they_are():
    boxes, problems = clean_px([[10, 20, 30, 60], [0, 0, 100, 200]])
    np.testing.assert_allclose(boxes, [[10, 20, 30, 60], [0, 0, 100, 200]])
    assert problems == []


@pytest.mark.parametrize(
    "box, kind",
    [
        ([10, 20, 10, 60], "zero_area_box"),
        ([10, 20, 30, 20], "zero_area_box"),
        ([30, 20, 10, 60], "inverted_box"),
        ([10, 60, 30, 20], "inverted_box"),
        ([np.nan, 20, 30, 60], "not_finite_box"),
        ([10, 20, np.inf, 60], "not_finite_box"),
        ([10, 250, 30, 400], "outside_box"),
        ([-50, 20, -10, 60], "outside_box"),
    ],
)
def test_boxes_one_cannot_train_on_are_dropped_and_named(box, kind):
    boxes, problems = clean_px([[10, 20, 30, 60], box, [1, 2, 3, 4]])
    assert len(boxes) == 2
    np.testing.assert_allclose(boxes[1], [1, 2, 3, 4], rtol=1e-6)
    assert problems == [(kind, "dropped", 1)]


def test_small_overshoot_is_clipped_and_only_a_note():
    boxes, problems = clean_px([[-1, 20, 30, 202]])
    np.testing.assert_allclose(boxes, [[0, 20, 30, 200]], rtol=1e-6)
    assert problems == [("overshoot", "clipped", 0)]
    assert not Problem("f", "overshoot", "clipped", "").is_error


def test_far_overshoot_is_clipped_and_an_error():
    boxes, problems = clean_px([[10, 20, 30, 300]])
    np.testing.assert_allclose(boxes, [[10, 20, 30, 200]], rtol=1e-6)
    assert problems == [("outside_box", "clipped", 0)]
    assert Problem("f", "outside_box", "clipped", "").is_error


def test_float32_rounding_is_clipped_without_a_word():
    boxes, problems = clean_px([[0, 0, 100 + 1e-5, 200 + 1e-5]])
    assert boxes.max() == 200 and problems == []


def test_unknown_class_is_dropped_with_its_flags():
    annotation = annotate(
        [[1, 2, 30, 40], [5, 6, 70, 80]],
        ["cow", "dog"],
        difficult=[False, True],
        truncated=[True, False],
        poses=["Left", "Rear"],
    )
    cleaned, problems = clean(annotation, ["cat", "dog"], HEIGHT, WIDTH)
    assert cleaned.names == ("dog",) and cleaned.poses == ("Rear",)
    assert cleaned.difficult.tolist() == [True]
    assert cleaned.truncated.tolist() == [False]
    assert problems[0].kind == "unknown_class" and problems[0].box == 0
    assert "cow" in problems[0].detail


def test_boxes_of_a_wrong_stated_size_are_pixels_of_the_image():
    boxes, problems = clean_px([[10, 20, 30, 60]], height=50, width=400)
    np.testing.assert_allclose(boxes, [[10, 20, 30, 60]], rtol=1e-6)
    assert problems == []


def test_relative_boxes_need_no_stated_size():
    annotation = Annotation(
        "one",
        "one.txt",
        None,
        None,
        [[0.1, 0.2, 0.3, 0.4]],
        ["cat"],
        image_bytes=b"",
    )
    cleaned, problems = clean(annotation, ["cat"], HEIGHT, WIDTH)
    np.testing.assert_allclose(cleaned.boxes, [[0.1, 0.2, 0.3, 0.4]])
    assert (cleaned.height, cleaned.width) == (HEIGHT, WIDTH)
    assert problems == []


def test_no_boxes():
    cleaned, problems = clean(annotate([]), ["cat"], HEIGHT, WIDTH)
    assert cleaned.boxes.shape == (0, 4) and cleaned.boxes.dtype == np.float32
    assert cleaned.difficult.shape == (0,) and problems == []


def test_problem_names_file_box_value_and_action():
    _, [problem] = clean(annotate([[30, 20, 10, 60]]), ["cat"], HEIGHT, WIDTH)
    assert str(problem) == (
        "one.xml: box 0: inverted_box: ymin, xmin, ymax, xmax = "
        "30, 20, 10, 60 px in an image of 200 x 100 (dropped)"
    )


def test_lengths_that_disagree_are_refused_with_the_file():
    with pytest.raises(ValueError, match="one.xml: 1 boxes but 2 names"):
        annotate([[1, 2, 3, 4]], ["cat", "dog"])
    with pytest.raises(ValueError, match="1 boxes but 2 difficult"):
        annotate([[1, 2, 3, 4]], difficult=[True, False])
    with pytest.raises(ValueError, match="received neither"):
        Annotation("one", "one.xml", 1, 1, [], [])
