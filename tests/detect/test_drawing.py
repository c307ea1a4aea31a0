"""Pictures of detections: what is where, and in which colour."""

import numpy as np
import pytest
from PIL import Image

from ssd_tf.detect import drawing
from ssd_tf.detect.drawing import class_color, contact_sheet, draw_detections

NAMES = ["cat", "dog"]
MIDDLE = [0.25, 0.25, 0.75, 0.75]


def grey(height=120, width=160):
    return np.full((height, width, 3), 127, np.uint8)


def drawn(image, *args, **options):
    """The picture as an array, and where it differs from the image."""
    picture = np.asarray(draw_detections(image, *args, NAMES, **options))
    assert picture.shape == image.shape and picture.dtype == np.uint8
    return picture, (picture != image).any(axis=-1)


def count_black(picture):
    """Pixels of text on class 1's red, some of them softened at its edge."""
    return (picture.max(axis=-1) < 60).sum()


def test_box_is_framed_in_the_colour_of_its_class():
    picture, changed = drawn(grey(), [MIDDLE], [0.9], [2])
    for y, x in ((60, 40), (60, 119), (89, 80)):
        assert tuple(picture[y, x]) == class_color(2)
    assert not changed[90:].any() and not changed[:, 120:].any()
    assert not changed[35:85, 45:115].any()


def test_tag_above_the_box_shows_text():
    picture, _ = drawn(grey(), [MIDDLE], [0.9], [1])
    above = picture[:30]
    assert (above == class_color(1)).all(axis=-1).sum() > 100
    assert count_black(above) > 10


def test_image_is_not_changed():
    image = grey()
    draw_detections(image, [MIDDLE], [0.9], [1], NAMES, gt_boxes=[MIDDLE])
    np.testing.assert_array_equal(image, grey())


@pytest.mark.parametrize(
    ("box", "score", "label"),
    [
        (MIDDLE, 0.49, 1),
        (MIDDLE, 0.9, 0),
        ([0.75, 0.25, 0.25, 0.75], 0.9, 1),
        ([np.nan, 0.25, 0.75, 0.75], 0.9, 1),
    ],
    ids=["low score", "padding", "inverted", "NaN"],
)
def test_not_drawn(box, score, label):
    _, changed = drawn(grey(), [box], [score], [label])
    assert not changed.any()


def test_ground_truth_that_cannot_be_drawn_is_left_out():
    gt_boxes = [[0.75, 0.25, 0.25, 0.75], [np.nan] * 4]
    _, changed = drawn(grey(), [], [], [], gt_boxes=gt_boxes)
    assert not changed.any()


def test_nothing_to_draw():
    _, changed = drawn(grey(), [], [], [], gt_boxes=[])
    assert not changed.any()


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (60, 60)])
def test_any_box_in_any_image(size):
    image = grey(*size)
    boxes = [[0, 0, 1, 1], [-2, -2, 3, 3], [0.5, 0.5, 0.5, 0.5], [1, 1, 1, 1]]
    _, changed = drawn(image, boxes, [0.9] * 4, [1] * 4, gt_boxes=boxes)
    assert changed.any()


@pytest.mark.parametrize(
    "box", [[0, 0.9, 0.2, 1], [0.9, 0, 1, 0.1], [0, 0, 1, 1], [1, 1, 1, 1]]
)
def test_tag_is_wholly_in_the_image(box):
    image = grey(200, 200)
    inside, _ = drawn(image, [[0.5, 0.3, 0.9, 0.9]], [0.9], [1])
    at_border, _ = drawn(image, [box], [0.9], [1])
    assert count_black(at_border) == count_black(inside) > 10


def test_class_without_a_name_is_drawn():
    # The port's defect B41.
    _, changed = drawn(grey(), [MIDDLE], [0.9], [77])
    assert changed.any()


def test_best_detection_is_on_top():
    boxes, scores = [MIDDLE, MIDDLE], [0.9, 0.8]
    picture, _ = drawn(grey(), boxes, scores, [1, 2])
    assert tuple(picture[60, 40]) == class_color(1)


def test_lines_grow_with_the_image():
    widths = []
    for scale in (1, 4):
        image = grey(240 * scale, 320 * scale)
        _, changed = drawn(image, [MIDDLE], [0.9], [1])
        row = changed[changed.shape[0] // 2]
        widths.append(row[: len(row) // 2].sum())
    assert widths[1] >= 3 * widths[0] >= 3


@pytest.mark.parametrize("value", [0, 127, 255])
def test_ground_truth_shows_on_any_background(value):
    image = np.full((120, 160, 3), value, np.uint8)
    picture, changed = drawn(image, [], [], [], gt_boxes=[MIDDLE])
    edge = picture[30:90, 40]
    assert {tuple(pixel) for pixel in edge} == {(0, 0, 0), (255, 255, 255)}
    assert not changed[35:85, 45:115].any()


def test_classes_have_colours_of_their_own():
    assert len({class_color(label) for label in range(1, 1001)}) == 1000
    first = np.array([class_color(label) for label in range(1, 11)], int)
    apart = np.abs(first[:, None] - first).sum(axis=-1)
    assert apart[~np.eye(10, dtype=bool)].min() > 60
    assert class_color(1) == (255, 0, 0)


def test_text_is_readable_on_every_colour():
    def luminance(color):
        value = np.array(color) / 255
        low, high = value / 12.92, ((value + 0.055) / 1.055) ** 2.4
        linear = np.where(value <= 0.04045, low, high)
        return linear @ [0.2126, 0.7152, 0.0722]

    for label in range(1, 300):
        color = class_color(label)
        pair = luminance(color), luminance(drawing._readable_on(color))
        assert (max(pair) + 0.05) / (min(pair) + 0.05) >= 4.5


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_other_images_are_refused(image):
    with pytest.raises(ValueError, match="Expected an RGB image"):
        draw_detections(image, [], [], [], NAMES)


def test_contact_sheet_fits_pictures_of_any_size():
    images = [
        np.full((40, 80, 3), 255, np.uint8),
        Image.new("RGB", (30, 300), (255, 0, 0)),
        np.zeros((100, 100, 3), np.uint8),
    ]
    sheet = contact_sheet(images, columns=2, tile_size=80)
    assert sheet.size == (2 + 2 * 82, 2 + 2 * 82)
    pixels = np.asarray(sheet)
    assert tuple(pixels[42, 42]) == (255, 255, 255)
    assert tuple(pixels[42, 124]) == (255, 0, 0)
    assert tuple(pixels[124, 42]) == (0, 0, 0)
    assert tuple(pixels[124, 124]) == drawing.NEUTRAL
    assert (pixels == 255).all(axis=-1).sum() == 40 * 80


def test_contact_sheet_of_one():
    sheet = contact_sheet([grey()], columns=4, tile_size=100)
    assert sheet.size == (104, 104)


@pytest.mark.parametrize(
    ("count", "columns", "tile_size"), [(0, 4, 320), (1, 0, 320), (1, 4, 0)]
)
def test_contact_sheet_of_nothing_is_refused(count, columns, tile_size):
    with pytest.raises(ValueError, match="Expected images"):
        contact_sheet([grey()] * count, columns, tile_size)


def test_frames_have_their_colour_and_width():
    picture = Image.fromarray(grey())
    boxes = [MIDDLE, [0.9, 0.9, 0.1, 0.1], [np.nan] * 4]
    drawing.draw_frames(picture, boxes, (1, 2, 3), width=2)
    changed = (np.asarray(picture) != grey()).any(axis=-1)
    # Of 160 by 120 pixels the middle is 80 by 60, and 76 by 56 inside.
    assert changed.sum() == 80 * 60 - 76 * 56
    assert np.asarray(picture)[30, 40].tolist() == [1, 2, 3]


def test_caption_stands_under_the_picture():
    words = [("red", (255, 0, 0)), ("green", (0, 255, 0))]
    for text in ([], [("much " * 4, (0, 0, 255))]):
        captioned = np.asarray(
            drawing.draw_caption(Image.fromarray(grey()), [*words, *text])
        )
        assert captioned.shape[1:] == (160, 3) and captioned.shape[0] > 130
        np.testing.assert_array_equal(captioned[:120], grey())
        below = captioned[120:].astype(int)
        columns = [
            np.flatnonzero((below[..., channel] > 60).any(axis=0))
            for channel in (0, 1)
        ]
        assert columns[0].max() < columns[1].min()
        # Written smaller where it is long: nothing is cut off at the edge.
        assert not below[:, -2:].any()
