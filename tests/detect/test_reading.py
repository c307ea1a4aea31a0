"""Images of every kind, good and hostile, and damaged TFRecords."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from detected import read_all, write_video
from hostile_images import bomb, gif_bomb
from PIL import Image

from ssd_tf.datasets import images
from ssd_tf.detect.reading import Picture, Unreadable, read_image
from ssd_tf.input_pipeline import preprocessing

RED = (200, 30, 60)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


KINDS = {
    "rgb.png": encoded(Image.new("RGB", (8, 6), RED)),
    "palette.png": encoded(Image.new("RGB", (8, 6), RED).quantize()),
    "palette.bmp": encoded(Image.new("RGB", (8, 6), RED).quantize(), "BMP"),
    "alpha.png": encoded(Image.new("RGBA", (8, 6), (*RED, 255))),
    "tiff.tif": encoded(Image.new("RGB", (8, 6), RED), "TIFF"),
    "webp.webp": encoded(Image.new("RGB", (8, 6), RED), "WEBP", lossless=True),
    "gif.gif": encoded(
        Image.new("RGB", (8, 6), RED),
        "GIF",
        save_all=True,
        append_images=[Image.new("RGB", (8, 6), (0, 0, 255))],
    ),
    "jpeg.jpg": encoded(Image.new("RGB", (8, 6), RED), "JPEG", quality=95),
    "cmyk.jpg": encoded(
        Image.new("RGB", (8, 6), RED).convert("CMYK"), "JPEG", quality=95
    ),
    "wrong_suffix.jpg": encoded(Image.new("RGB", (8, 6), RED)),
    "no_suffix": encoded(Image.new("RGB", (8, 6), RED)),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_read_in_its_colours(tmp_path, name):
    (tmp_path / name).write_bytes(KINDS[name])
    data, pixels = read_image(tmp_path / name)
    assert pixels.dtype == np.uint8 and pixels.shape == (6, 8, 3)
    assert np.abs(pixels.astype(int) - RED).max() <= 4
    np.testing.assert_array_equal(
        tf.io.decode_image(data, channels=3).numpy(), pixels
    )


@pytest.mark.parametrize(
    "image, value",
    [
        (Image.new("L", (8, 6), 77), 77),
        (Image.new("1", (8, 6), 1), 255),
        (Image.fromarray(np.full((6, 8), 77 * 256, np.uint16)), 77),
    ],
    ids=["grey", "bits", "16 bits"],
)
def test_without_colour_all_channels_are_equal(image, value):
    _, pixels = read_image(encoded(image))
    np.testing.assert_array_equal(pixels, np.full((6, 8, 3), value))


def test_one_pixel():
    _, pixels = read_image(encoded(Image.new("RGB", (1, 1), RED)))
    np.testing.assert_array_equal(pixels, [[RED]])


@pytest.mark.parametrize(
    "name, data, reason",
    [
        ("cut.jpg", encoded(Image.new("RGB", (99, 99)), "JPEG")[:600], ""),
        ("cut.png", KINDS["rgb.png"][:50], ""),
        ("empty.jpg", b"", "is no image"),
        ("text.jpg", b"no picture", "is no image"),
        ("floats.tif", encoded(Image.new("F", (8, 6)), "TIFF"), "float"),
        ("bomb.png", bomb(20_000, 20_000), "20000 x 20000 are more"),
        ("bomb.gif", gif_bomb(20_000, 30_000), "30000 x 20000 are more"),
        ("lies.png", bomb(500, 500), ""),
        ("icon.jpg", encoded(Image.new("RGB", (16, 16)), "ICO"), "is an icon"),
        ("icon.png", encoded(Image.new("RGB", (16, 16)), "ICNS"), "is an icon"),
        ("a.jpg", encoded(Image.new("RGB", (9, 9)), "EPS"), "or PostScript"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path, name, data, reason, monkeypatch
):
    # As the command does.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / name).write_bytes(data)
    (found,) = read_all([tmp_path / name])
    assert found.file == str(tmp_path / name)
    assert isinstance(found, Unreadable) and reason in found.reason


def test_a_bomb_is_not_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(images, "prepare", None)
    with pytest.raises(images.UnreadableImageError, match="megapixels"):
        read_image(bomb(20_000, 20_000))
    with pytest.raises(images.UnreadableImageError, match="0.4 million"):
        read_image(bomb(401, 1000), max_pixels=400_000)


def whole_bombs(side):
    """Files that can be decoded, to 4 bytes a pixel, and do not say so."""
    huge = Image.new("1", (side, side))
    png, gif = encoded(huge), encoded(huge, "GIF")
    screen = struct.pack("<HH", side, side)
    entry = struct.pack("<4B2H2I", 9, 9, 0, 0, 1, 32, len(png), 22)
    return {
        "a.png": png,
        "small_screen.gif": gif.replace(screen, b"\x09\0\x09\0", 1),
        "icon.jpg": b"\0\0\1\0\1\0" + entry + png,
    }


def test_bombs_are_refused_in_little_memory(tmp_path, pictures, run_script):
    for name, data in whole_bombs(9000).items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "good.jpg").write_bytes(pictures[0])
    script = """
import pathlib, re, sys
from PIL import Image
from ssd_tf.datasets import images
from ssd_tf.detect.reading import read_image
Image.MAX_IMAGE_PIXELS = None  # as the command does
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
folder = pathlib.Path(sys.argv[1])
read_image(folder / "good.jpg")
before = peak()
for name in ("a.png", "small_screen.gif", "icon.jpg"):
    try:
        read_image(folder / name)
    except images.UnreadableImageError as error:
        print(error)
print(peak() - before)
"""
    *reasons, kilobytes = run_script(script, tmp_path).splitlines()
    size = "9000 x 9000 are more than 64 million pixels"
    assert [reason.partition(",")[0] for reason in reasons] == [
        *(size, size, "is an icon or PostScript")
    ]
    # One picture would have 324,000 and more.
    assert int(kilobytes) < 50_000


def test_a_bomb_is_refused_by_pillow_where_its_limit_stands():
    with pytest.raises(images.UnreadableImageError, match="400000000 pixels"):
        read_image(bomb(20_000, 20_000))


def test_the_largest_image_that_may_be():
    data = encoded(Image.new("RGB", (50, 40), RED))
    assert read_image(data, max_pixels=2000)[1].shape == (40, 50, 3)
    with pytest.raises(images.UnreadableImageError):
        read_image(data, max_pixels=1999)


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises((OSError, images.UnreadableImageError)):
        read_image(tmp_path / "a.jpg")


def test_a_turned_picture_is_read_upright(pictures):
    with Image.open(io.BytesIO(pictures[1])) as image:
        exif = image.getexif()
        exif[0x0112] = 6  # turn a quarter clockwise to see it upright
        turned = encoded(image, "JPEG", exif=exif, quality=95)
    data, pixels = read_image(turned)
    with Image.open(io.BytesIO(turned)) as image:
        stored = np.asarray(image)
    # Encoded once more, as JPEG of quality 95: close, not equal.
    difference = np.abs(pixels.astype(int) - np.rot90(stored, -1))
    assert difference.mean() < 4
    np.testing.assert_array_equal(preprocessing.decode(data), pixels)


def test_an_upright_picture_keeps_its_bytes(pictures):
    assert read_image(pictures[0])[0] == pictures[0]


def example(**features):
    features = {
        key.replace("_", "/", 1): tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[value])
        )
        for key, value in features.items()
    }
    features = tf.train.Features(feature=features)
    return tf.train.Example(features=features).SerializeToString()


@pytest.fixture
def records(tmp_path, pictures):
    """Two good images, of one name, between a record of none and a bad one."""
    path = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(
            example(image_encoded=pictures[0], image_source_id=b"../x.jpg")
        )
        writer.write(example(image_source_id=b"none"))
        writer.write(b"no example")
        writer.write(example(image_encoded=b"text", image_source_id=b"broken"))
        writer.write(
            example(image_encoded=pictures[1], image_source_id=b"../x.jpg")
        )
    return path


def test_bad_records_stop_nothing(records, pictures):
    first, none, no_example, broken, last = read_all([records])
    assert [first.encoded, last.encoded] == pictures[:2]
    assert "record 1: " in none.reason and "record 2: " in no_example.reason
    assert broken.file == f"{records}:broken"
    assert [first.name, last.name] == ["_x.jpg", "_x_2.jpg"]
    assert first.source_id != last.source_id


def test_a_damaged_record_file_is_read_up_to_the_damage(records, pictures):
    data = records.read_bytes()
    records.write_bytes(data[:-100])
    *others, end = read_all([records])
    assert isinstance(others[0], Picture) and len(others) == 4
    assert end.file == str(records) and "after 4 records" in end.reason


def test_an_empty_record_file_has_no_picture(tmp_path):
    (tmp_path / "a.tfrecord").touch()
    assert read_all([tmp_path / "a.tfrecord"]) == []


def test_reading_ends_where_it_is_told_to(tmp_path, pictures):
    asked = []
    for name in "abcd":
        (tmp_path / f"{name}.jpg").write_bytes(pictures[0])

    def is_stopped():
        asked.append(1)
        return len(asked) > 2

    found = read_all([tmp_path], is_stopped=is_stopped)
    assert [each.source_id for each in found] == ["a", "b"]


def test_a_video_that_is_too_large_is_not_read(tmp_path):
    write_video(tmp_path / "a.avi", [np.zeros((40, 60, 3), np.uint8)])
    (found,) = read_all([tmp_path / "a.avi"], max_pixels=2000)
    assert "60 x 40 are more" in found.reason
