"""Geometry: numbers by hand, laws, and NumPy equal to TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.multibox import boxes as geometry

UNIT = [0.0, 0.0, 1.0, 1.0]
INVERTED = [0.6, 0.6, 0.4, 0.9]
POINT = [0.5, 0.5, 0.5, 0.5]


def array(*boxes):
    return np.array(boxes, np.float32)


@pytest.fixture(params=["numpy", "tensorflow"])
def given(request):
    """Boxes as an array or as a tensor."""
    convert = np.asarray if request.param == "numpy" else tf.constant
    return lambda *boxes: convert(array(*boxes))


@pytest.fixture
def many():
    random = np.random.RandomState(0)
    corners = np.sort(random.uniform(-0.2, 1.2, (50, 2, 2)), axis=1)
    return corners.reshape(50, 4).astype(np.float32)


def test_area(given):
    boxes = given([0.1, 0.2, 0.4, 0.7], UNIT, INVERTED, POINT)
    np.testing.assert_allclose(geometry.area(boxes), [0.15, 1, 0, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("box", "other", "iou"),
    [
        # .2 x .3 shared of .4 x .4 + .4 x .4 - .06.
        ([0.1, 0.1, 0.5, 0.5], [0.3, 0.2, 0.7, 0.6], 0.06 / 0.26),
        (UNIT, [0.25, 0.25, 0.75, 0.75], 0.25),
        (UNIT, UNIT, 1),
        ([0, 0, 0.5, 0.5], [0, 0.5, 0.5, 1], 0),  # they touch
        ([0, 0, 0.1, 0.1], [0.8, 0.8, 0.9, 0.9], 0),
        (UNIT, POINT, 0),
        (UNIT, INVERTED, 0),
        (POINT, POINT, 0),
        (INVERTED, INVERTED, 0),
    ],
)
def test_iou_by_hand(given, box, other, iou):
    here = geometry.iou_matrix(given(box), given(other))
    there = geometry.iou_matrix(given(other), given(box))
    # A float32 sum near .3 is good to 3e-8, their quotient to 3e-7.
    np.testing.assert_allclose(here, [[iou]], rtol=1e-6)
    np.testing.assert_allclose(there, [[iou]], rtol=1e-6)


def test_iou_of_all_pairs_and_of_a_batch(many):
    batch = many.reshape(5, 10, 4)
    matrix = geometry.iou_matrix(batch, many)
    assert matrix.shape == (5, 10, 50)
    flat = matrix.reshape(50, 50)
    np.testing.assert_array_equal(flat, geometry.iou_matrix(many, many))
    np.testing.assert_allclose(np.diag(flat), 1, rtol=1e-6)
    np.testing.assert_allclose(flat, flat.T, atol=1e-6)
    assert (flat >= 0).all() and (flat <= 1 + 1e-6).all()


def test_no_boxes(given):
    none = tf.zeros([0, 4])
    assert geometry.iou_matrix(none, given(UNIT)).shape == (0, 1)
    assert geometry.area(none).shape == (0,)


def test_clip_to_the_image(given):
    boxes = given([-0.1, 0.2, 0.5, 1.3], [1.2, -0.5, 1.4, -0.1], UNIT)
    clipped = geometry.clip(boxes)
    # The second lies outside: no area, on the border.
    expected = array([0, 0.2, 0.5, 1], [1, 0, 1, 0], UNIT)
    np.testing.assert_array_equal(clipped, expected)


def test_clip_to_a_window(given):
    window = np.array([0.2, 0.3, 0.6, 0.9], np.float32)
    np.testing.assert_array_equal(
        geometry.clip(given(UNIT), window), window[None]
    )


def test_clip_keeps_the_order_of_corners(many):
    clipped = geometry.clip(many * 3 - 1)
    assert (clipped[:, :2] <= clipped[:, 2:]).all()


def test_center_form_by_hand(given):
    center = geometry.to_center(given([0.1, 0.2, 0.5, 0.8]))
    np.testing.assert_allclose(center, [[0.3, 0.5, 0.4, 0.6]], rtol=1e-6)


def test_to_corners_inverts_to_center(many):
    back = geometry.to_corners(geometry.to_center(many))
    np.testing.assert_allclose(back, many, atol=2e-7)


@pytest.mark.parametrize(
    "function",
    [
        geometry.area,
        geometry.clip,
        geometry.to_center,
        geometry.to_corners,
        lambda boxes: geometry.iou_matrix(boxes, boxes),
        lambda boxes: geometry.intersection_matrix(boxes, boxes),
    ],
)
def test_answers_in_kind(many, function):
    ours, theirs = function(many), function(tf.constant(many))
    assert isinstance(ours, np.ndarray) and tf.is_tensor(theirs)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=2e-7)
