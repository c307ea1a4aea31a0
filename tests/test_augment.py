"""Image and boxes move together, and as the seed says."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf import augment

WHOLE = [0.0, 0.0, 1.0, 1.0]


def example_of(*boxes, shape=(20, 30)):
    """An example whose pixels all differ."""
    height, width = shape
    return {
        "image": tf.reshape(tf.range(height * width * 3.0), [height, width, 3])
        % 251,
        "boxes": tf.reshape(tf.constant(boxes, tf.float32), [-1, 4]),
        "labels": tf.range(1, len(boxes) + 1, dtype=tf.int64),
        "ignored": tf.range(len(boxes)) % 2 == 1,
    }


def seed(number):
    return tf.constant([number, 5])


def window_of(boxes, number, shape=(300, 400, 3)):
    boxes = tf.reshape(tf.constant(boxes, tf.float32), [-1, 4])
    return augment.crop_window(tf.constant(shape), boxes, seed(number))


def test_flip_by_hand():
    example = example_of([0.1, 0.2, 0.5, 0.9])
    flipped = augment.flip_left_right(example)
    np.testing.assert_allclose(
        flipped["boxes"], [[0.1, 0.1, 0.5, 0.8]], rtol=1e-6
    )
    np.testing.assert_array_equal(flipped["image"], example["image"][:, ::-1])


def test_flipping_twice_is_the_identity():
    example = example_of([0.1, 0.25, 0.5, 0.875], WHOLE)
    twice = augment.flip_left_right(augment.flip_left_right(example))
    for key, value in example.items():
        np.testing.assert_array_equal(twice[key], value)


def test_every_second_image_is_flipped():
    example = example_of([0.1, 0.2, 0.5, 0.9])
    flips = 0
    for number in range(200):
        boxes = augment.random_flip(example, seed(number))["boxes"]
        flips += bool(boxes[0, 1] != example["boxes"][0, 1])
    assert 70 < flips < 130  # four standard deviations


def test_boxes_in_a_window_by_hand():
    example = example_of(
        [0.5, 0.5, 0.625, 0.75],  # inside
        [0.125, 0.25, 0.625, 0.75],  # centre inside: clipped
        [0.0, 0.0, 0.49, 0.49],  # centre outside: dropped
        [0.6875, 0.6875, 0.8125, 0.8125],  # ignored, and some is seen
        [0.6875, 0.6875, 0.8125, 0.8125],  # centre on the border: dropped
        [0.75, 0.25, 0.875, 0.5],  # ignored, and none is seen
    )
    window = tf.constant([0.25, 0.375, 0.75, 0.875])
    cropped = augment.crop_boxes(example, window)
    # Halves of halves, exact in binary.
    expected = [
        [0.5, 0.25, 0.75, 0.75],
        [0, 0, 0.75, 0.75],
        [0.875, 0.625, 1, 0.875],
    ]
    np.testing.assert_array_equal(cropped["boxes"], expected)
    # What belongs to the boxes goes with them.
    np.testing.assert_array_equal(cropped["labels"], [1, 2, 4])
    np.testing.assert_array_equal(cropped["ignored"], [False, True, True])


def test_the_whole_image_as_window_changes_nothing():
    example = example_of([0.1, 0.2, 0.5, 0.9], WHOLE)
    cropped = augment.crop_boxes(example, tf.constant(WHOLE))
    for key, value in example.items():
        np.testing.assert_array_equal(cropped[key], value)


def test_windows_lie_in_the_image_and_keep_the_papers_bounds():
    windows = np.array(
        [window_of([[0.4, 0.4, 0.6, 0.6]], k) for k in range(150)]
    )
    assert windows.min() >= 0 and windows.max() <= 1
    height, width = (windows[:, 2:] - windows[:, :2]).T
    # A pixel of rounding on 300 x 400.
    assert (height * width > 0.09 - 0.01).all()
    partial = height * width < 1
    aspect = (width * 400 / (height * 300))[partial]
    assert aspect.min() > 0.5 - 0.02 and aspect.max() < 2 + 0.02
    # One in seven is told to stay whole, 21 of 150; few others give up.
    assert 8 < (~partial).sum() < 45


def test_most_windows_keep_a_box():
    # The port's crop lost a box as large as the image nine times in ten.
    kept = 0
    for number in range(100):
        window = window_of([WHOLE], number)
        cropped = augment.crop_boxes(example_of(WHOLE), window)
        for box in cropped["boxes"]:
            np.testing.assert_allclose(box, WHOLE, atol=1e-6)
            kept += 1
    assert kept > 85


def test_a_window_covers_its_share_of_a_box():
    # All shares from .1 on mean that the box is touched.
    touched = 0
    for number in range(100):
        ymin, xmin, ymax, xmax = window_of([[0.7, 0.7, 0.9, 0.9]], number)
        touched += bool(ymax > 0.7 and xmax > 0.7 and ymin < 0.9 and xmin < 0.9)
    assert touched > 85  # two shares of seven ask for nothing, or are whole


@pytest.mark.parametrize("number", range(5))
def test_without_boxes_the_image_stays_whole(number):
    np.testing.assert_array_equal(window_of([], number), WHOLE)
    cropped = augment.crop_boxes(example_of(), tf.constant(WHOLE))
    assert cropped["boxes"].shape == (0, 4)


def test_boxes_that_reach_beyond_the_image_are_no_error():
    for number in range(10):
        window = window_of([[-0.001, 0.2, 0.5, 1.0000001]], number)
        assert np.isfinite(window).all()


def test_saturate_by_hand():
    red = tf.constant([[[100.0, 0, 0]]])
    # Grey is 29.9.
    half = augment.saturate(red, 0.5)
    np.testing.assert_allclose(half, [[[64.95, 14.95, 14.95]]], rtol=1e-5)
    np.testing.assert_allclose(augment.saturate(red, 0.0), [[[29.9] * 3]])
    grey = tf.fill([1, 1, 3], 77.0)
    np.testing.assert_allclose(augment.saturate(grey, 1.5), grey, rtol=1e-6)


def test_colours_stay_in_range_and_one_image_in_eight_as_it_is():
    image = example_of()["image"]
    unchanged = 0
    for number in range(100):
        changed = augment.random_colors(image, seed(number))
        assert np.min(changed) >= 0 and np.max(changed) <= 255
        unchanged += bool(np.all(changed == image))
    assert 3 <= unchanged <= 25  # 12.5 expected, four standard deviations


FUNCTIONS = {
    "random_flip": augment.random_flip,
    "crop_window": lambda example, seed: augment.crop_window(
        tf.shape(example["image"]), example["boxes"], seed
    ),
    "crop_boxes": lambda example, _: augment.crop_boxes(
        example, tf.constant([0.1, 0.2, 0.9, 0.8])
    ),
    "random_colors": lambda example, seed: augment.random_colors(
        example["image"], seed
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_eager_and_in_a_dataset(name):
    example = example_of([0.1, 0.2, 0.5, 0.9], [0.3, 0.3, 0.95, 0.4])
    function = FUNCTIONS[name]
    seeds = tf.stack([seed(number) for number in range(8)])
    mapped = tf.data.Dataset.from_tensor_slices(seeds).map(
        lambda one: function(example, one)
    )
    for one, result in zip(seeds, mapped, strict=True):
        expected = function(example, one)
        for ours, theirs in zip(
            tf.nest.flatten(result), tf.nest.flatten(expected), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["random_flip", "crop_window", "random_colors"]
)
def test_the_seed_alone_decides(name):
    example = example_of([0.1, 0.2, 0.5, 0.9])

    def run(number):
        parts = tf.nest.flatten(FUNCTIONS[name](example, seed(number)))
        return np.concatenate([np.ravel(part) for part in parts])

    first = [run(number) for number in range(20)]
    tf.random.set_seed(99)
    again = [run(number) for number in range(20)]
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first, axis=0)) > 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_window_is_found_beside_boxes_that_are_no_numbers(bad):
    for number in range(20):
        window = window_of([[0.1, bad, 0.5, 0.9], [0, 0, 1, 1]], number)
        assert np.all(np.isfinite(window))
