"""Pictures and JSON from folders, good and bad."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from processes import error_of, finish, start

from ssd_tf import detect, export, serving


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    """Two good JPEGs, one of them lying on its side, and a broken one."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "a.jpg").write_bytes(pictures[0])
    with Image.open(io.BytesIO(pictures[1])) as image:
        exif = image.getexif()
        exif[0x0112] = 6  # turn a quarter clockwise to see it upright
        image.save(folder / "b.JPG", "JPEG", exif=exif, quality=95)
    (folder / "c.jpg").write_bytes(pictures[2][:500])
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_the_command_draws_writes_and_counts(trained, folder, tmp_path):
    output = finish(
        start(
            *("-m", "ssd_tf.detect", f"--model={trained.train_dir}"),
            f"--input={folder}",
            f"--output_dir={tmp_path}",
            "--min_score=0.2",
        )
    )
    assert "not readable: " in output and "c.jpg" in output
    assert "(1 not readable)" in output
    assert {path.name for path in tmp_path.iterdir()} == {
        "a.jpg",
        "b.JPG",
        "detections.json",
    }
    result = json.loads((tmp_path / "detections.json").read_text())
    assert tuple(result["class_names"]) == trained.settings.class_names
    first, second = result["images"]
    with Image.open(folder / "b.JPG") as stored:
        assert (second["height"], second["width"]) == stored.size
    with Image.open(tmp_path / "b.JPG") as drawn:
        assert (second["width"], second["height"]) == drawn.size
    scores = [found["score"] for found in first["detections"]]
    assert scores == sorted(scores, reverse=True) and scores
    for found in first["detections"]:
        assert result["class_names"][found["class"] - 1] == found["name"]
        assert np.all(np.clip(found["box"], 0, 1) == found["box"])


def test_train_dir_and_export_detect_the_same(trained, pictures, tmp_path):
    export.export_saved_model(
        trained.net, trained.settings.class_names, tmp_path
    )
    from_train_dir, _ = serving.load_predictor(trained.train_dir)
    from_export, class_names = serving.load_predictor(tmp_path)
    assert class_names == trained.settings.class_names
    mine, theirs = from_train_dir(pictures), from_export(pictures)
    for name in mine:
        np.testing.assert_allclose(mine[name], theirs[name], atol=1e-4)


def test_a_turned_picture_is_read_upright(folder):
    encoded, pixels = detect.read_image(folder / "b.JPG")
    with Image.open(io.BytesIO(encoded)) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)
    with Image.open(folder / "b.JPG") as image:
        stored = np.asarray(image)
    # Encoded once more, as JPEG of quality 95: close, not equal.
    difference = np.abs(pixels.astype(int) - np.rot90(stored, -1))
    assert difference.mean() < 4


def test_an_upright_picture_keeps_its_bytes(folder):
    encoded, _ = detect.read_image(folder / "a.jpg")
    assert encoded == (folder / "a.jpg").read_bytes()


@pytest.mark.parametrize(
    "source, message",
    [
        ("/nowhere", "--input=/nowhere: no such file or folder"),
        ("{tmp}", "no image in it"),
    ],
)
def test_mistakes_are_one_line(trained, tmp_path, source, message):
    assert message in error_of(
        *("-m", "ssd_tf.detect", f"--model={trained.train_dir}"),
        f"--input={source.format(tmp=tmp_path)}",
        f"--output_dir={tmp_path / 'out'}",
    )
    assert not (tmp_path / "out").exists()


def test_the_originals_are_never_drawn_over(trained, folder):
    before = (folder / "a.jpg").read_bytes()
    message = error_of(
        *("-m", "ssd_tf.detect", f"--model={trained.train_dir}"),
        f"--input={folder}",
        f"--output_dir={folder}",
    )
    assert "holds the images themselves" in message
    assert (folder / "a.jpg").read_bytes() == before


def test_pictures_of_one_stem_do_not_meet(trained, tmp_path):
    for name in ("a.png", "a.gif", "a.bmp"):
        Image.new("P", (40, 30)).save(tmp_path / name)
    predict, names = serving.load_predictor(trained.train_dir)
    paths = detect.list_images(tmp_path)
    detect.detect_images(predict, names, paths, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "a.png",
        "a.gif.png",
        "a.bmp.png",
        "detections.json",
    }


def test_palettes_are_read_in_their_colours(tmp_path):
    picture = Image.new("RGB", (8, 8), (200, 30, 60)).quantize()
    picture.save(tmp_path / "a.bmp")
    encoded, pixels = detect.read_image(tmp_path / "a.bmp")
    decoded = tf.io.decode_image(encoded, channels=3).numpy()
    assert tuple(decoded[4, 4]) == tuple(pixels[4, 4]) == (200, 30, 60)
