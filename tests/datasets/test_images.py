"""Images of a conversion: formats, pixels and EXIF orientation."""

import io

import numpy as np
import pytest
import tensorflow as tf
import voc_tree
from converted import kinds, read
from PIL import Image

from ssd_tf.datasets import images
from ssd_tf.datasets.convert.convert import convert


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


@pytest.mark.parametrize(
    "image, note",
    [
        (voc_tree.picture(mode="CMYK"), "CMYK JPEG to RGB JPEG"),
        (voc_tree.picture(image_format="WEBP"), "RGB WEBP to RGB JPEG"),
        (voc_tree.picture(image_format="GIF"), "P GIF to RGB PNG"),
        (voc_tree.picture(image_format="BMP"), "RGB BMP to RGB PNG"),
        (voc_tree.picture(image_format="TIFF"), "RGB TIFF to RGB PNG"),
        (
            voc_tree.picture(mode="RGBA", image_format="PNG"),
            "RGBA PNG to RGB PNG",
        ),
        (voc_tree.picture(mode="P", image_format="PNG"), "P PNG to RGB PNG"),
        (voc_tree.picture(mode="L"), None),
        (voc_tree.picture(mode="L", image_format="PNG"), None),
        (voc_tree.picture(image_format="PNG"), None),
        (voc_tree.picture(progressive=True), None),
    ],
)
def test_every_image_format_becomes_what_tensorflow_reads(
    tmp_path, image, note
):
    voc_tree.add(tmp_path / "raw", "a", voc_tree.item(), image=image)
    manifest = convert(tmp_path / "raw", tmp_path / "d")
    [item] = read(tmp_path / "d")
    if note:
        [problem] = manifest["splits"]["all"]["problems"]
        assert (problem["kind"], problem["detail"]) == ("re_encoded", note)
    else:
        assert item["encoded"] == image
        assert kinds(manifest) == {}
    expected = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
    assert item["image"].shape == (40, 60, 3)
    difference = np.abs(item["image"].astype(int) - expected)
    assert difference.mean() < 3


def test_sixteen_bits_keep_the_high_byte():
    deep = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    file = io.BytesIO()
    Image.fromarray(deep).save(file, "PNG")
    picture = images.prepare(file.getvalue())
    decoded = tf.io.decode_image(picture.encoded).numpy()
    np.testing.assert_array_equal(decoded[..., 0], deep >> 8)


def test_animated_gif_shows_its_first_frame():
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    decoded = tf.io.decode_image(images.prepare(file.getvalue()).encoded)
    assert decoded.shape == (6, 8, 3)
    assert decoded.numpy()[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    """The box that is drawn on the upright picture keeps its content."""
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:10, :30] = 255  # the object: top left
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    file = io.BytesIO()
    Image.fromarray(upright).transpose(back).save(
        file, "JPEG", exif=exif(orientation), quality=95
    )
    voc_tree.add(
        tmp_path / "raw",
        "a",
        voc_tree.item(box=(1, 1, 30, 10)),
        image=file.getvalue(),
    )
    manifest = convert(tmp_path / "raw", tmp_path / "d")
    assert kinds(manifest)["exif_orientation"] == "mended"
    assert "wrong_size" not in kinds(manifest)
    [item] = read(tmp_path / "d")
    assert item["image"].shape == (40, 60, 3)
    assert item["image"][1:9, 1:29].min() > 200
    assert item["image"][12:].max() < 50
    np.testing.assert_array_equal(item["boxes"], [[0, 0, 0.25, 0.5]])


def test_boxes_drawn_on_stored_pixels_keep_them(tmp_path):
    """A tool that ignores EXIF states the stored size."""
    image = voc_tree.picture(40, 60, exif=exif(6))
    voc_tree.add(
        tmp_path / "raw",
        "a",
        voc_tree.item(box=(1, 1, 30, 10)),
        image=image,
        size=(40, 60),
    )
    manifest = convert(tmp_path / "raw", tmp_path / "d")
    assert kinds(manifest) == {"exif_orientation": "mended"}
    [item] = read(tmp_path / "d")
    assert item["encoded"] == image
    np.testing.assert_array_equal(item["boxes"], [[0, 0, 0.25, 0.5]])
