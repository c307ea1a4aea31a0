"""Windows: the laws of Caffe's sampler, whole pixels, boxes within."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config.training import AugmentParams
from ssd_tf.input_pipeline import crops
from ssd_tf.multibox import boxes as geometry

WHOLE = [0.0, 0.0, 1.0, 1.0]
SIZE = (300, 400)
ALWAYS = AugmentParams(expand_prob=1.0)


def example_of(*boxes, ignored=None):
    number = len(boxes)
    return {
        "boxes": tf.reshape(tf.constant(boxes, tf.float32), [-1, 4]),
        "labels": tf.range(1, number + 1, dtype=tf.int64),
        "ignored": tf.constant(ignored or [False] * number, tf.bool),
    }


def drawn(function, number):
    """`function` of `number` seeds, as one array."""
    seeds = tf.stack([tf.range(number), tf.fill([number], 5)], axis=1)
    results = tf.data.Dataset.from_tensor_slices(seeds).map(function)
    return np.array(list(results.as_numpy_iterator()))


def crops_of(example, number=200, canvas=(0, 0, *SIZE), **settings):
    params = AugmentParams(**settings)

    def crop(seed):
        return crops.draw_crop(
            example,
            tf.constant(SIZE, tf.float32),
            tf.constant(canvas, tf.float32),
            seed,
            params,
        )

    return drawn(crop, number)


def is_whole(windows):
    return (windows == [0, 0, *SIZE]).all(-1)


def ious(windows, *boxes):
    """The best overlap of each window, pixels, with a relative box."""
    pixels = np.float32(boxes) * np.float32([*SIZE, *SIZE])
    return geometry.iou_matrix(windows, pixels).max(-1)


# Zoom-out.


def test_the_canvas_has_caffes_sizes_and_holds_the_image():
    size = tf.constant([30.0, 40.0])
    windows = drawn(lambda seed: crops.zoom_out(size, seed, ALWAYS), 600)
    np.testing.assert_array_equal(windows, np.round(windows))
    low, extent = windows[:, :2], windows[:, 2:] - windows[:, :2]
    assert (low <= 0).all() and (windows[:, 2:] >= [30, 40]).all()
    # One ratio for both sides, each rounded down.
    ratio = (extent[:, 1] + 0.5) / 40
    assert (np.abs(ratio * 30 - 0.5 - extent[:, 0]) <= 1).all()
    # Uniform from 1 to 4 with mean 2.5; a standard error is 0.035.
    assert 1 <= ratio.min() < 1.1 and 3.9 < ratio.max() <= 4.02
    np.testing.assert_allclose(ratio.mean(), 2.5, atol=0.14)
    # Every place is as likely, both edges included.
    room = extent - [30, 40]
    share = (-low / np.maximum(room, 1))[ratio > 2]
    np.testing.assert_allclose(share.mean(0), 0.5, atol=0.06)
    assert (low == 0)[room > 0].any() and (-low == room)[room > 0].any()


@pytest.mark.parametrize(
    ("settings", "low", "high"),
    [
        ({"expand_prob": 0.5}, 160, 240),  # four standard deviations
        ({"expand_prob": 1.0, "max_expand_ratio": 1.0}, 0, 0),
    ],
)
def test_how_many_images_are_zoomed_out(settings, low, high):
    params = AugmentParams(**settings)
    size = tf.constant([300.0, 400.0])
    windows = drawn(lambda seed: crops.zoom_out(size, seed, params), 400)
    assert low <= (~is_whole(windows)).sum() <= high


# Crops.


def test_windows_have_the_papers_scales_and_shapes():
    windows = crops.random_windows(4000, [1, 2], AugmentParams()).numpy()
    # Rounding of float32.
    assert windows.min() >= -1e-6 and windows.max() <= 1 + 1e-6
    height, width = (windows[:, 2:] - windows[:, :2]).T
    scale, aspect = np.sqrt(height * width), width / height
    # Uniform: mean .65, standard error .0032.
    assert 0.3 <= scale.min() + 1e-5 < 0.303 and 0.997 < scale.max() < 1 + 1e-5
    np.testing.assert_allclose(scale.mean(), 0.65, atol=0.013)
    assert aspect.min() > 0.5 - 1e-4 and aspect.max() < 2 + 1e-4
    # Below sqrt(1/2) any ratio fits; uniform as in Caffe, mean 1.25.
    small = scale < 0.7
    np.testing.assert_allclose(aspect[small].mean(), 1.25, atol=0.04)
    # Else it is cut to what fits: one side is the whole one.
    wide = (scale > 0.9) & (aspect > scale**-2 - 1e-4)
    assert wide.sum() > 100
    np.testing.assert_allclose(width[wide], 1, atol=1e-4)


def test_pixels_of_windows_by_hand():
    canvas = tf.constant([-10.0, -20.0, 90.0, 180.0])  # 100 x 200
    windows = tf.constant(
        [
            [0.101, 0.25, 0.499, 0.5],
            [0.0, 0.0, 1.0, 1.0],
            [-1e-6, -1e-6, 1.000001, 1.000001],
            [0.991, 0.999, 0.992, 0.9995],
            [1.0, 1.0, 1.0, 1.0],  # by rounding; a pixel is left
        ]
    )
    expected = [
        [0, 30, 40, 80],
        [-10, -20, 90, 180],
        [-10, -20, 90, 180],
        [89, 179, 90, 180],
        [89, 179, 90, 180],
    ]
    np.testing.assert_array_equal(crops.to_pixels(windows, canvas), expected)


@pytest.mark.parametrize("minimum", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_crop_overlaps_some_box_as_far_as_it_must(minimum):
    boxes = [0.1, 0.1, 0.9, 0.9], [0.2, 0.5, 0.6, 0.9]
    windows = crops_of(example_of(*boxes), crop_overlaps=(minimum,))
    cropped = windows[~is_whole(windows)]
    # Half of the images choose the crop; 50 trials seldom find one of .9.
    assert len(cropped) > (70 if minimum < 0.9 else 2)
    assert ious(cropped, *boxes).min() >= minimum
    np.testing.assert_array_equal(cropped, np.round(cropped))


def test_no_crop_where_no_window_can_overlap_enough():
    # Windows have .09 of the area and more, the box .01: IoU is below .12.
    box = [0.4, 0.4, 0.5, 0.5]
    windows = crops_of(example_of(box), crop_overlaps=(0.3, 0.5, 0.7, 0.9))
    assert is_whole(windows).all()
    windows = crops_of(example_of(box), crop_overlaps=(0.0,))
    assert 70 < is_whole(windows).sum() < 130


def test_the_first_window_that_fits_is_taken():
    # Large windows overlap more: a better one must not be searched for.
    example = example_of([0.0, 0.0, 1.0, 1.0])
    windows = crops_of(example, 400, crop_overlaps=(0.25,))
    share = ious(windows[~is_whole(windows)], WHOLE)
    # Scale uniform in .5 to 1: share of area on average .583.
    np.testing.assert_allclose(share.mean(), 0.583, atol=0.06)


def test_all_choices_are_as_likely():
    # Six that always find a window, and the whole image; 100 each of 700.
    example = example_of([0.2, 0.2, 0.8, 0.8])
    windows = crops_of(example, 700, crop_overlaps=(0.0,) * 6)
    assert 62 < is_whole(windows).sum() < 138  # four standard deviations
    # Four that never do: the choice is between the other two and the whole.
    windows = crops_of(
        example_of([0.4, 0.4, 0.5, 0.5]),
        600,
        crop_overlaps=(0.5, 0.0, 0.6, 0.7, 0.0, 0.9),
    )
    assert 153 < is_whole(windows).sum() < 247


def caffe_overlap(random, boxes):
    """IoU of a crop drawn as sampler.cpp says it, one window at a time."""
    found = [WHOLE]
    for minimum in (0.1, 0.3, 0.5, 0.7, 0.9, 0.0):
        for _ in range(50):
            scale, aspect = random.uniform(0.3, 1), random.uniform(0.5, 2)
            aspect = min(max(aspect, scale**2), scale**-2)
            width, height = scale * aspect**0.5, scale / aspect**0.5
            left = random.uniform(0, max(1 - width, 0))
            top = random.uniform(0, max(1 - height, 0))
            window = [top, left, top + height, left + width]
            if geometry.iou_matrix(np.array([window]), boxes).max() >= minimum:
                found.append(window)
                break
    window = found[random.integers(len(found))]
    return geometry.iou_matrix(np.array([window]), boxes).max()


def test_overlaps_are_distributed_as_those_of_caffe():
    boxes = np.array([[0.05, 0.1, 0.95, 0.8], [0.2, 0.6, 0.4, 0.9]])
    number = 600
    ours = ious(crops_of(example_of(*boxes), number), *boxes)
    random = np.random.default_rng(0)
    caffes = [caffe_overlap(random, boxes) for _ in range(number)]
    # Between the hundredths: the whole image has exactly .63.
    levels = np.arange(0.005, 1, 0.01)
    shares = [(np.array(x)[:, None] < levels).mean(0) for x in (ours, caffes)]
    # Kolmogorov-Smirnov at 1e-4: 2.23 * sqrt(2 / 600).
    assert np.abs(shares[0] - shares[1]).max() < 0.129


def test_a_box_as_large_as_the_image_survives():
    example = example_of(WHOLE)
    for window in crops_of(example, 100, crop_overlaps=(0.5, 0.7, 0.9)):
        _, _, relative = crops.place(tf.constant(window), SIZE, (300, 300))
        # Half of it or more is seen, so its centre is.
        cropped = crops.crop_boxes(example, relative)
        np.testing.assert_allclose(cropped["boxes"], [WHOLE], atol=1e-6)


def test_the_full_recipe_keeps_most_boxes_as_large_as_the_image():
    # The port lost it nine times in ten.
    windows = crops_of(example_of(WHOLE), 300)
    low, high = windows[:, :2], windows[:, 2:]
    centre = np.array(SIZE) / 2
    kept = ((low < centre) & (centre < high)).all(-1)
    assert kept.mean() > 0.75


@pytest.mark.parametrize(
    "example",
    [
        example_of(),
        example_of(WHOLE, ignored=[True]),
        example_of([np.nan, 0.1, 0.5, 0.5]),
        example_of([0.1, np.inf, 0.5, 0.9]),
    ],
    ids=["none", "ignored", "nan", "inf"],
)
def test_without_boxes_that_count_the_image_stays_whole(example):
    assert is_whole(crops_of(example, 50)).all()


def test_ignored_boxes_and_such_that_are_no_numbers_do_not_count():
    boxes = [0.1, 0.1, 0.5, 0.5], [0.5, 0.5, 1, 1], [0.2, np.nan, 0.5, 0.9]
    example = example_of(*boxes, ignored=[False, True, False])
    windows = crops_of(example, crop_overlaps=(0.5,))
    cropped = windows[~is_whole(windows)]
    assert len(cropped) > 50
    assert ious(cropped, boxes[0]).min() >= 0.5


def test_boxes_that_reach_beyond_the_image_are_no_error():
    windows = crops_of(example_of([-0.001, 0.2, 0.5, 1.0000001]), 50)
    assert windows.min() >= 0 and (windows[:, 2:] <= SIZE).all()


def test_crops_from_a_canvas_show_some_of_the_image():
    # The image is a sixteenth of the canvas: most windows miss it.
    canvas = np.array([-900, -1200, 300, 400])
    windows = crops_of(
        example_of(WHOLE), 300, canvas=canvas, crop_overlaps=(0.0,)
    )
    assert (windows >= [*canvas[:2], 0, 0]).all()
    assert (windows[:, :2] < SIZE).all() and (windows[:, 2:] > 0).all()
    smaller = (windows[:, 2:] - windows[:, :2] < canvas[2:] - canvas[:2]).any(1)
    assert smaller.sum() > 100


@pytest.mark.parametrize("prob", [0.0, 0.25])
def test_crop_prob(prob):
    params = AugmentParams(
        expand_prob=0.0, crop_prob=prob, crop_overlaps=(0.0,) * 20
    )
    windows = drawn(
        lambda seed: crops.draw_window(
            example_of(WHOLE), tf.constant(SIZE), seed, params
        ),
        400,
    )
    # One window in 21 is the whole image; four standard deviations.
    expected = 400 * prob * 20 / 21
    assert abs((~is_whole(windows)).sum() - expected) <= 4 * expected**0.5


def test_windows_of_an_image_of_one_pixel():
    windows = drawn(
        lambda seed: crops.draw_window(
            example_of(WHOLE), tf.constant([1, 1]), seed, ALWAYS
        ),
        100,
    )
    assert (windows[:, :2] <= 0).all() and (windows[:, 2:] >= 1).all()


# From windows to pixels and boxes.


@pytest.mark.parametrize(
    ("window", "source", "target", "relative"),
    [
        # The whole image of 100 x 200.
        ([0, 0, 100, 200], [0, 0, 100, 200], [0, 0, 300, 300], WHOLE),
        # A part: exactly itself.
        (
            [25, 50, 75, 150],
            [25, 50, 75, 150],
            [0, 0, 300, 300],
            [0.25, 0.25, 0.75, 0.75],
        ),
        # A canvas of 300 x 400: columns 37.5 to 187.5 round to 38 and 188,
        # 200 pixels on 150, so that the window begins at -38 * 4 / 3.
        (
            [-100, -50, 200, 350],
            [0, 0, 100, 200],
            [100, 38, 200, 188],
            [-1, -38 / 150, 2, (300 - 38) / 150],
        ),
        # One pixel of the image, in a corner of 900 x 900: 1/3 of a pixel,
        # but not less than one.
        (
            [99, 199, 999, 1099],
            [99, 199, 100, 200],
            [0, 0, 1, 1],
            [0.99, 199 / 200, 3.99, 499 / 200],
        ),
        (
            [-899, -899, 1, 1],
            [0, 0, 1, 1],
            [299, 299, 300, 300],
            [-2.99, -299 / 200, 0.01, 1 / 200],
        ),
    ],
)
def test_places_by_hand(window, source, target, relative):
    window = tf.constant(window, tf.float32)
    placed = crops.place(window, tf.constant([100, 200]), (300, 300))
    np.testing.assert_array_equal(placed[0], source)
    np.testing.assert_array_equal(placed[1], target)
    np.testing.assert_allclose(placed[2], relative, rtol=1e-6)


def test_a_box_around_the_image_stays_around_its_pixels():
    size = tf.constant([37, 53])

    def check(seed):
        window = crops.draw_window(example_of(WHOLE), size, seed, ALWAYS)
        _, target, relative = crops.place(window, size, (100, 150))
        low, high = relative[:2], relative[2:]
        corners = tf.reshape(tf.constant(WHOLE), [2, 2])
        moved = geometry.clip(tf.reshape((corners - low) / (high - low), [4]))
        pixels = moved * tf.constant([100.0, 150.0] * 2)
        return tf.stack([pixels, tf.cast(target, tf.float32)])

    pixels, target = np.moveaxis(drawn(check, 300), 1, 0)
    np.testing.assert_allclose(pixels, target, atol=1e-4)  # float32 of 150
    assert len(np.unique(target, axis=0)) > 200


def test_boxes_in_a_window_by_hand():
    example = example_of(
        [0.5, 0.5, 0.625, 0.75],  # inside
        [0.125, 0.25, 0.625, 0.75],  # centre inside: clipped
        [0.0, 0.0, 0.49, 0.49],  # centre outside: dropped
        [0.6875, 0.6875, 0.8125, 0.8125],  # ignored, and some is seen
        [0.6875, 0.6875, 0.8125, 0.8125],  # centre on the border: dropped
        [0.75, 0.25, 0.875, 0.5],  # ignored, and none is seen
        ignored=[False, False, False, True, False, True],
    )
    window = tf.constant([0.25, 0.375, 0.75, 0.875])
    cropped = crops.crop_boxes(example, window)
    # Halves of halves, exact in binary.
    expected = [
        [0.5, 0.25, 0.75, 0.75],
        [0, 0, 0.75, 0.75],
        [0.875, 0.625, 1, 0.875],
    ]
    np.testing.assert_array_equal(cropped["boxes"], expected)
    # What belongs to the boxes goes with them.
    np.testing.assert_array_equal(cropped["labels"], [1, 2, 4])
    np.testing.assert_array_equal(cropped["ignored"], [False, False, True])


def test_boxes_on_a_canvas_by_hand():
    example = example_of([0.5, 0.5, 1, 1], WHOLE)
    cropped = crops.crop_boxes(example, tf.constant([-1.0, 0.0, 1.0, 4.0]))
    expected = [[0.75, 0.125, 1, 0.25], [0.5, 0, 1, 0.25]]
    np.testing.assert_array_equal(cropped["boxes"], expected)


@pytest.mark.parametrize("boxes", [(), ([0.1, 0.2, 0.5, 0.9], WHOLE)])
def test_the_whole_image_as_window_changes_nothing(boxes):
    example = example_of(*boxes)
    cropped = crops.crop_boxes(example, tf.constant(WHOLE))
    for key, value in example.items():
        np.testing.assert_array_equal(cropped[key], value)


def test_the_seed_alone_decides_eager_and_in_a_dataset():
    example = example_of([0.1, 0.2, 0.5, 0.9], [0.3, 0.3, 0.95, 0.4])
    params = dataclasses.replace(ALWAYS, expand_prob=0.5)

    def window(seed):
        return crops.draw_window(example, tf.constant(SIZE), seed, params)

    mapped = drawn(window, 12)
    tf.random.set_seed(99)
    eager = [window(tf.constant([number, 5])) for number in range(12)]
    # Whole pixels: nothing to round differently.
    np.testing.assert_array_equal(mapped, eager)
    assert len(np.unique(mapped, axis=0)) > 6
