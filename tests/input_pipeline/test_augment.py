"""The whole of it: pixels stay under their boxes, and the seed decides."""

import dataclasses
import functools
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_tf.config.training import AUGMENTATIONS, AugmentParams
from ssd_tf.input_pipeline import augment
from ssd_tf.input_pipeline.preprocessing import decode, resize

WHOLE = [0.0, 0.0, 1.0, 1.0]
FILL = (1.0, 2.0, 3.0)
SHAPE = (90, 120)
NONE = AUGMENTATIONS["none"]
RED, BLUE = (200, 40, 40), (40, 40, 200)
MOVES = AugmentParams(
    brightness_prob=0.0, contrast_prob=0.0, saturation_prob=0.0, hue_prob=0.0
)


def encoded(pixels, format="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(np.uint8(pixels)).save(buffer, format, **options)
    return buffer.getvalue()


def noise(height=60, width=80):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (height, width, 3))


def smooth(height=60, width=80):
    """Pixels that JPEG keeps almost as they are."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([2 * y + 30, x + 40, y + x + 30], -1)


def example_of(image, *boxes, ignored=None):
    number = len(boxes)
    return {
        "image": tf.constant(image),
        "boxes": tf.reshape(tf.constant(boxes, tf.float32), [-1, 4]),
        "labels": tf.range(1, number + 1, dtype=tf.int64),
        "ignored": tf.constant(ignored or [False] * number, tf.bool),
    }


def settings(**changes):
    """Nothing but what is said."""
    return dataclasses.replace(NONE, **changes)


SPECS = {
    "image": tf.TensorSpec([], tf.string),
    "boxes": tf.TensorSpec([None, 4], tf.float32),
    "labels": tf.TensorSpec([None], tf.int64),
    "ignored": tf.TensorSpec([None], tf.bool),
}


@functools.cache
def compiled(params, shape, fill):
    """One trace for all examples; a seed is a number."""

    @tf.function(input_signature=[SPECS, tf.TensorSpec([], tf.int32)])
    def run(example, number):
        return augment.augment(
            example, tf.stack([number, 3]), params, shape, fill
        )

    return run


def augmented(example, number, params, shape=SHAPE, fill=FILL):
    """Results for that many seeds, as NumPy."""
    run = compiled(params, shape, fill)
    results = [run(example, tf.constant(seed)) for seed in range(number)]
    return [
        {key: value.numpy() for key, value in result.items()}
        for result in results
    ]


def mapped(example, number, params, threads):
    """The same in a pipeline."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    results = (
        tf.data.Dataset.range(number, output_type=tf.int32)
        .map(
            lambda seed: compiled(params, SHAPE, FILL)(example, seed),
            num_parallel_calls=threads,
        )
        .with_options(options)
    )
    return list(results.as_numpy_iterator())


def bounds(mask):
    """The box around what is True, relative."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    box = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
    return np.array(box) / [*mask.shape, *mask.shape]


# Everything off.


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("shape", [SHAPE, (60, 80)])
def test_none_is_what_evaluation_does(format, shape):
    boxes = [0.1, 0.2, 0.5, 0.9], WHOLE, [-0.5, -0.5, 0, 0]
    example = example_of(encoded(noise(), format), *boxes)
    expected = {**example, "image": resize(decode(example["image"]), shape)}
    eager = augment.augment(example, tf.constant([1, 2]), NONE, shape, FILL)
    for result in (eager, *augmented(example, 1, NONE, shape)):
        for key, value in expected.items():
            np.testing.assert_array_equal(result[key], value)
        assert result["image"].dtype == np.float32


# One at a time.


def test_flip_by_hand():
    example = example_of("", [0.1, 0.2, 0.5, 0.9])
    example["image"] = tf.constant(noise(), tf.float32)
    flipped = augment.flip_left_right(example)
    np.testing.assert_allclose(
        flipped["boxes"], [[0.1, 0.1, 0.5, 0.8]], rtol=1e-6
    )
    np.testing.assert_array_equal(flipped["image"], noise()[:, ::-1])


def test_flipping_twice_is_the_identity():
    example = example_of("", [0.1, 0.25, 0.5, 0.875], WHOLE)
    example["image"] = tf.constant(noise(), tf.float32)
    twice = augment.flip_left_right(augment.flip_left_right(example))
    for key, value in example.items():
        np.testing.assert_array_equal(twice[key], value)


@pytest.mark.parametrize(
    ("prob", "low", "high"),
    [(1.0, 200, 200), (0.5, 72, 128), (0.25, 26, 74)],  # 4 deviations
)
def test_flip_prob(prob, low, high):
    example = example_of(encoded(noise(6, 8)), [0.0, 0.0, 0.5, 0.25])
    results = augmented(example, 200, settings(flip_prob=prob), (6, 8))
    flips = 0
    for result in results:
        flipped = result["boxes"][0, 1] == 0.75
        flips += flipped
        pixels = noise(6, 8)[:, ::-1] if flipped else noise(6, 8)
        np.testing.assert_array_equal(result["image"], pixels)
    assert low <= flips <= high


def test_zoomed_out_images_lie_where_their_box_is_on_the_mean_colour():
    example = example_of(encoded(np.full([30, 40, 3], 200)), WHOLE)
    results = augmented(example, 60, settings(expand_prob=1.0))
    for result in results:
        pixels = result["image"]
        shown = (pixels == 200).all(-1)
        np.testing.assert_array_equal(
            pixels[~shown], np.broadcast_to(FILL, [(~shown).sum(), 3])
        )
        # Bounds of the pixels: exact up to float32.
        np.testing.assert_allclose(result["boxes"], [bounds(shown)], atol=1e-6)
    areas = np.array([result["boxes"][0, 2:].prod() for result in results])
    assert len(np.unique(areas)) > 50


def test_a_canvas_by_hand():
    image = tf.constant(noise(2, 3), tf.float32)
    target = tf.constant([1, 2, 3, 5])
    canvas = augment.put_on_canvas(image, target, (4, 7), FILL).numpy()
    expected = np.tile(np.float32(FILL), [4, 7, 1])
    expected[1:3, 2:5] = noise(2, 3)
    np.testing.assert_array_equal(canvas, expected)
    whole = tf.constant([0, 0, 2, 3])
    result = augment.put_on_canvas(image, whole, (2, 3), FILL)
    np.testing.assert_array_equal(result, image)


def test_the_mean_colour_is_not_distorted():
    example = example_of(encoded(noise()), WHOLE)
    params = AugmentParams(
        brightness_prob=1.0,
        contrast_prob=1.0,
        saturation_prob=1.0,
        hue_prob=1.0,
        expand_prob=1.0,
        crop_prob=0.0,
    )
    for result in augmented(example, 10, params):
        ymin, xmin, ymax, xmax = np.round(result["boxes"][0] * [*SHAPE, *SHAPE])
        y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
        outside = (y < ymin) | (y >= ymax) | (x < xmin) | (x >= xmax)
        assert outside.sum() > 100
        np.testing.assert_array_equal(
            result["image"][outside],
            np.broadcast_to(FILL, [outside.sum(), 3]),
        )


def test_each_kernel_is_one_image_in_five():
    image = tf.constant(noise(), tf.uint8)
    kernels = {
        kernel: np.clip(tf.image.resize(image, SHAPE, method=kernel), 0, 255)
        for kernel in augment.KERNELS
    }
    params = settings(random_interpolation=True)
    drawn = dict.fromkeys(kernels, 0)
    for result in augmented(example_of(encoded(noise())), 250, params):
        pixels = result["image"]
        # `area` adds up in float32.
        assert pixels.min() >= 0 and pixels.max() <= 255.01
        # Rounding of a compiled function; the kernels differ by 10 and more.
        (kernel,) = (
            name
            for name, expected in kernels.items()
            if np.abs(pixels - expected).max() < 0.01
        )
        drawn[kernel] += 1
    for number in drawn.values():
        assert 25 < number < 75  # four standard deviations


def test_cropped_pixels_are_a_part_of_the_image():
    pixels = noise(32, 32).astype(np.uint8)
    example = example_of(encoded(pixels), WHOLE)
    params = settings(crop_prob=1.0, crop_overlaps=(0.0,) * 20)
    sizes = set()
    for number in range(12):
        seed = tf.constant([number, 1])
        part, target = augment.cut(example, seed, params, SHAPE)
        np.testing.assert_array_equal(target, [0, 0, *SHAPE])
        shape = part["image"].shape
        windows = np.lib.stride_tricks.sliding_window_view(pixels, shape)
        assert (windows == part["image"].numpy()).all((-3, -2, -1)).sum() == 1
        sizes.add(tuple(shape))
    assert len(sizes) > 8


# All together.


@pytest.mark.parametrize("name", ["ssd", "light"])
def test_pixels_follow_their_box(name):
    box = [0.25, 0.25, 0.75, 0.75]
    pixels = np.full([16, 16, 3], BLUE)
    pixels[4:12, 4:12] = RED
    params = dataclasses.replace(
        AUGMENTATIONS[name],
        brightness_prob=0.0,
        contrast_prob=0.0,
        saturation_prob=0.0,
        hue_prob=0.0,
    )
    example = example_of(encoded(pixels), box)
    measured = 0
    for result in augmented(example, 150, params, (128, 128), (9.0, 9.0, 9.0)):
        image = result["image"]
        # Half-way from blue to red, which is where the edge is.
        red = image[..., 0] > np.maximum(image[..., 2], 60)
        for found in result["boxes"]:
            # A pixel, or half of one of the 16 where `nearest` or `area`
            # had to choose, zoomed out.
            np.testing.assert_allclose(bounds(red), found, atol=1.5 / 128)
            measured += 1
    assert measured > 75


def test_a_crop_of_a_jpeg_is_that_of_its_pixels():
    # Its own sizes in both, so that the same seed draws the same.
    jpeg = encoded(smooth(100, 120), "JPEG", quality=95)
    png = encoded(decode(jpeg).numpy())
    boxes = [0.2, 0.2, 0.7, 0.6], [0.5, 0.5, 0.9, 1.0]
    results = [
        augmented(example_of(data, *boxes), 40, MOVES) for data in (jpeg, png)
    ]
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours["boxes"], theirs["boxes"])
        # JPEG's colours are interpolated; at an edge of the crop from less.
        np.testing.assert_allclose(ours["image"], theirs["image"], atol=8)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (200, 2)])
def test_images_of_few_pixels(format, name, shape):
    example = example_of(encoded(np.full([*shape, 3], 80), format), WHOLE)
    params = dataclasses.replace(AUGMENTATIONS[name], brightness_prob=0.0)
    for result in augmented(example, 25, params, fill=(0.0, 0.0, 0.0)):
        assert result["image"].shape == (*SHAPE, 3)
        shown = (result["image"] > 30).all(-1)
        assert shown.any()
        for box in result["boxes"]:
            np.testing.assert_allclose(bounds(shown), box, atol=1e-5)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_grey_images(format):
    example = example_of(encoded(smooth()[..., 0], format), WHOLE)
    for result in augmented(example, 20, AugmentParams(), fill=(7.0,) * 3):
        image = result["image"]
        # Colour operations leave grey grey, up to rounding.
        np.testing.assert_allclose(image, image[..., :1] + [0] * 3, atol=1e-3)


def test_images_of_background_only_are_never_cropped():
    image = np.full([30, 40, 3], 100)
    image[[0, -1]] = image[:, [0, -1]] = 200  # a frame
    example = example_of(encoded(image))
    params = settings(crop_prob=1.0)
    for result in augmented(example, 30, params, (30, 40)):
        np.testing.assert_array_equal(result["image"], image)
        assert result["boxes"].shape == (0, 4)
        assert result["labels"].shape == result["ignored"].shape == (0,)


def test_boxes_that_are_no_numbers_poison_nothing():
    boxes = [0.1, np.nan, 0.5, 0.9], [0.2, 0.2, 0.8, 0.8]
    example = example_of(encoded(smooth()), *boxes)
    kept = 0
    for result in augmented(example, 40, AugmentParams()):
        assert np.isfinite(result["image"]).all()
        good = result["boxes"][result["labels"] == 2]
        assert np.isfinite(good).all()
        kept += len(good)
    assert kept > 25


def test_labels_and_flags_stay_with_their_boxes():
    boxes = [[0.1 * k, 0.1, 0.1 * k + 0.1, 0.9] for k in range(10)]
    ignored = [k % 3 == 0 for k in range(10)]
    example = example_of(encoded(smooth()), *boxes, ignored=ignored)
    counts = set()
    for result in augmented(example, 40, AugmentParams()):
        labels, tops = result["labels"], result["boxes"][:, 0]
        np.testing.assert_array_equal(
            result["ignored"], np.array(ignored)[labels - 1]
        )
        # From top to bottom, as before.
        assert (np.diff(tops) >= 0).all() and (np.diff(labels) > 0).all()
        counts.add(len(labels))
    assert len(counts) > 4


def test_augmented_images_stay_in_range_and_are_all_different():
    results = augmented(
        example_of(encoded(noise()), WHOLE), 40, AugmentParams()
    )
    images = np.array([result["image"] for result in results])
    # Rounding of hues and of sums, in float32.
    assert images.min() >= -0.01 and images.max() <= 255.01
    assert len(np.unique(images[:, ::9, ::9], axis=0)) == 40


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_the_seed_alone_decides_whatever_the_threads(format):
    example = example_of(encoded(smooth(), format), [0.1, 0.2, 0.7, 0.9])
    ours = mapped(example, 12, AugmentParams(), 1)
    tf.random.set_seed(99)
    others = mapped(example, 12, AugmentParams(), 8)
    for number, (one, other) in enumerate(zip(ours, others, strict=True)):
        eager = augment.augment(
            example, tf.constant([number, 3]), AugmentParams(), SHAPE, FILL
        )
        for key, value in one.items():
            np.testing.assert_array_equal(value, other[key])
            # Fused multiplications of the compiled function.
            np.testing.assert_allclose(value, eager[key], rtol=1e-5, atol=1e-2)
    assert len({result["boxes"].tobytes() for result in ours}) > 8
