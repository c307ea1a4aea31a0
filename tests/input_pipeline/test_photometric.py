"""Colours: by hand, against OpenCV's HSV, in both orders."""

import colorsys

import cv2
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config.training import AUGMENTATIONS, AugmentParams
from ssd_tf.input_pipeline import photometric

OFF = {
    "brightness_prob": 0.0,
    "contrast_prob": 0.0,
    "saturation_prob": 0.0,
    "hue_prob": 0.0,
}
COLOUR = (150.0, 100.0, 50.0)  # hue 15 of 180, saturation 2/3


def random_image(shape=(40, 50)):
    """Noise, and colours where HSV needs care."""
    random = np.random.default_rng(0)
    image = random.uniform(0, 255, (*shape, 3)).astype(np.float32)
    image[0, :3] = [0, 0, 0], [255, 255, 255], [255, 0, 0]
    # Reds whose hue, just below the whole circle, rounds up to it.
    image[1] = [200, 40, 40]
    image[1, :, 2] += np.geomspace(1e-5, 1e-2, shape[1])
    return image


def plain(colour=COLOUR):
    return tf.fill([1, 1, 3], 1.0) * tf.constant(colour)


def distorted(number, image=None, **settings):
    """Results for that many seeds, one operation alone unless told."""
    params = AugmentParams(**{**OFF, **settings})
    image = plain() if image is None else image
    seeds = tf.stack([tf.range(number), tf.fill([number], 7)], axis=1)
    results = tf.data.Dataset.from_tensor_slices(seeds).map(
        lambda seed: photometric.distort_colors(image, seed, params)
    )
    return np.array(list(results.as_numpy_iterator()))


def hsv_of(image, hue=0.0, saturation=1.0):
    """OpenCV: to HSV, changed, and back. Hue in degrees."""
    hsv = cv2.cvtColor(image / np.float32(255), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + hue) % 360
    hsv[..., 1] = np.minimum(hsv[..., 1] * saturation, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255


def test_brightness_by_hand():
    changed = photometric.brighten(plain((10.0, 100.0, 250.0)), -20.0)
    np.testing.assert_array_equal(changed[0, 0], [0, 80, 230])
    changed = photometric.brighten(plain((10.0, 100.0, 250.0)), 20.0)
    np.testing.assert_array_equal(changed[0, 0], [30, 120, 255])


def test_contrast_by_hand():
    changed = photometric.contrast(plain((0.0, 100.0, 200.0)), 1.5)
    np.testing.assert_array_equal(changed[0, 0], [0, 150, 255])


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.9, 1.0, 1.25, 1.5])
def test_saturation_is_that_of_opencv(factor):
    image = random_image()
    ours = photometric.saturate(image, tf.constant(factor))
    # Float32 on both sides, and OpenCV divides by s + epsilon.
    np.testing.assert_allclose(
        ours, hsv_of(image, saturation=factor), atol=2e-3
    )


def test_saturation_by_hand():
    # The largest channel stays; the others move from it.
    changed = photometric.saturate(plain((200.0, 150.0, 100.0)), 0.5)
    np.testing.assert_allclose(changed[0, 0], [200, 175, 150], rtol=1e-5)
    # No further than saturation 1.
    changed = photometric.saturate(plain((200.0, 110.0, 20.0)), 1.5)
    np.testing.assert_allclose(changed[0, 0], [200, 100, 0], atol=1e-3)


@pytest.mark.parametrize("delta", [-18.0, -4.5, 0.0, 7.0, 18.0, 60.0])
def test_hue_is_that_of_opencv(delta):
    image = random_image()
    ours = photometric.rotate_hue(image, tf.constant(delta))
    # A hue of float32 has 1e-5 degrees; times 255 / 60.
    np.testing.assert_allclose(ours, hsv_of(image, 2 * delta), atol=5e-3)


def test_hue_by_hand():
    red = plain((200.0, 0.0, 0.0))
    for delta, colour in ((60, (0, 200, 0)), (-60, (0, 0, 200))):
        changed = photometric.rotate_hue(red, tf.constant(float(delta)))
        np.testing.assert_allclose(changed[0, 0], colour, atol=1e-3)
    # Beyond red it goes on with purple, where Caffe's bytes stop at red.
    changed = photometric.rotate_hue(red, tf.constant(-15.0))
    np.testing.assert_allclose(changed[0, 0], [200, 0, 100], atol=1e-3)


@pytest.mark.parametrize("colour", [(77.0,) * 3, (0.0,) * 3, (255.0,) * 3])
def test_grey_has_no_colour_to_change(colour):
    grey = plain(colour)
    np.testing.assert_allclose(photometric.saturate(grey, 1.5), grey, rtol=1e-6)
    turned = photometric.rotate_hue(grey, tf.constant(17.0))
    np.testing.assert_allclose(turned, grey, rtol=1e-6)


def saturation(colour):
    return 1 - colour.min() / colour.max()


def hue(colour):
    return colorsys.rgb_to_hsv(*colour)[0] * 180


@pytest.mark.parametrize(
    ("prob", "measure", "low", "high"),
    [
        ("brightness_prob", lambda x: x[0] - 150, -32, 32),
        ("contrast_prob", lambda x: x[0] / 150, 0.5, 1.5),
        ("saturation_prob", lambda x: saturation(x) * 3 / 2, 0.5, 1.5),
        ("hue_prob", lambda x: (hue(x) - 15 + 90) % 180 - 90, -18, 18),
    ],
)
def test_each_alone_has_its_range_and_is_drawn_half_the_time(
    prob, measure, low, high
):
    results = distorted(300, **{prob: 0.5})[:, 0, 0]
    changed = np.abs(results - COLOUR).max(-1) > 1e-3
    assert 115 < changed.sum() < 185  # four standard deviations
    amounts = np.array([measure(colour) for colour in results[changed]])
    width = high - low
    assert low - 1e-3 <= amounts.min() < low + 0.1 * width
    assert high - 0.1 * width < amounts.max() <= high + 1e-3
    # Uniform: a standard error is .29 / 12 of the width.
    mean = (low + high) / 2
    np.testing.assert_allclose(amounts.mean(), mean, atol=0.1 * width)


def test_probability_one_is_always():
    results = distorted(60, contrast_prob=1.0, contrast_range=(0.5, 0.5))
    np.testing.assert_array_equal(
        results, np.full([60, 1, 1, 3], COLOUR) * np.float32(0.5)
    )


@pytest.mark.parametrize("augmentation", ["none"])
def test_nothing_is_computed_for_what_is_off(augmentation):
    image = plain()
    params = AUGMENTATIONS[augmentation]
    assert photometric.distort_colors(image, [1, 2], params) is image


BOTH = {
    "contrast_prob": 1.0,
    "contrast_range": (1.5, 1.5),
    "saturation_prob": 1.0,
    "saturation_range": (0.5, 0.5),
}


def test_both_orders():
    image = plain((200.0, 100.0, 50.0))
    # (255, 150, 75), then half the distance from 255.
    second = [255, 202.5, 165]
    # (200, 150, 125), then half as much again.
    last = [255, 225, 187.5]
    for prob, colour in ((0.0, second), (1.0, last)):
        results = distorted(5, image, random_order_prob=prob, **BOTH)
        np.testing.assert_allclose(results[:, 0, 0], [colour] * 5, rtol=1e-5)
    results = distorted(200, image, random_order_prob=0.5, **BOTH)
    lasts = np.isclose(results[:, 0, 0, 1], 225)
    assert np.isclose(results[~lasts, 0, 0, 1], 202.5).all()
    assert 70 < lasts.sum() < 130  # four standard deviations


def test_values_stay_in_range_and_one_image_in_sixteen_as_it_is():
    image = tf.constant(random_image((4, 5)))
    results = distorted(320, image, **{key: 0.5 for key in OFF})
    # A hue's rounding in float32.
    assert results.min() >= -1e-3 and results.max() <= 255 + 1e-3
    same = (results == image.numpy()).all((1, 2, 3)).sum()
    assert 3 <= same <= 38  # 20 expected, four standard deviations


def test_the_seed_alone_decides_eager_and_in_a_dataset():
    image = tf.constant(random_image((4, 5)))
    settings = {key: 0.7 for key in OFF}
    mapped = distorted(12, image, **settings)
    tf.random.set_seed(99)
    params = AugmentParams(**settings)
    eager = [
        photometric.distort_colors(image, tf.constant([number, 7]), params)
        for number in range(12)
    ]
    # Fused multiplications of the compiled function.
    np.testing.assert_allclose(mapped, eager, atol=1e-3)
    assert len(np.unique(mapped, axis=0)) == 12
