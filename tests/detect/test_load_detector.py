"""The detector of a notebook: any image in, `Detections` out."""

import io

import numpy as np
import pytest
from PIL import Image
from served import export_saved_model

import ssd_tf
from ssd_tf.command import UserError
from ssd_tf.detect.results import Detections


@pytest.fixture(scope="module")
def detector(lively):
    return ssd_tf.load_detector(lively.train_dir)


@pytest.fixture(scope="module", params=["train_dir", "SavedModel"])
def any_detector(request, lively, detector, tmp_path_factory):
    if request.param == "train_dir":
        return detector
    folder = tmp_path_factory.mktemp("exported") / "ssd"
    export_saved_model(lively.net, lively.settings.class_names, folder)
    return ssd_tf.load_detector(folder)


def assert_same(found, expected, atol=0.0):
    assert len(found) == len(expected) > 0
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.scores, expected.scores, atol=atol)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=atol)


def test_every_kind_of_image_gives_the_same(any_detector, pictures, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(pictures[0])
    expected = any_detector(path)
    assert any_detector.class_names == expected.names
    with Image.open(path) as image:
        array = np.asarray(image)
        for same in (str(path), pictures[0], image, array):
            assert_same(any_detector(same), expected)
    assert expected.image_size == array.shape[:2]
    np.testing.assert_array_equal(expected.pixels, array)


def test_a_batch_is_its_images(any_detector, pictures):
    together = any_detector(list(pictures))
    assert len(together) == len(pictures)
    for found, picture in zip(together, pictures, strict=True):
        # Sums of another order, in float32.
        assert_same(found, any_detector(picture), atol=1e-5)
    assert any_detector([]) == []


def test_an_upright_picture_is_detected_on(detector, pictures):
    with Image.open(io.BytesIO(pictures[1])) as image:
        exif = image.getexif()
        exif[0x0112] = 6  # turn a quarter clockwise to see it upright
        file = io.BytesIO()
        image.save(file, "PNG", exif=exif)
        upright = np.rot90(np.asarray(image), -1)
    for turned in (file.getvalue(), Image.open(file)):
        assert_same(detector(turned), detector(np.ascontiguousarray(upright)))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5, 5, 3), np.float32), "array of float32; expected uint8"),
        (np.zeros((5, 5), np.uint8), "shape 5x5; expected height x width x 3"),
        (np.zeros((5, 5, 4), np.uint8), "shape 5x5x4; .* grey or RGBA"),
        (np.zeros((0, 5, 3), np.uint8), "shape 0x5x3"),
        ("nowhere.jpg", "^nowhere.jpg: No such file or directory$"),
        (b"no image", "^the bytes: not a readable image"),
        (7, "an image is a int; expected a path, bytes"),
    ],
)
def test_other_images_are_one_sentence(detector, image, message):
    with pytest.raises(UserError, match=message) as caught:
        detector(image)
    assert "--" not in str(caught.value) and "\n" not in str(caught.value)


def test_detections_are_a_sequence(detector, pictures):
    found = detector(pictures[0])
    first = found[0]
    assert first.class_name == found.class_names[0]
    assert first.score == found.scores[0] == found.scores.max()
    assert [each.score for each in found] == found.scores.tolist()
    few = found[:3]
    assert isinstance(few, Detections) and len(few) == 3
    cut = float(np.median(found.scores))
    assert len(found.above(cut)) == np.count_nonzero(found.scores >= cut)
    picture = found.plot(cut)
    assert picture.size == found.image_size[::-1]
    assert np.asarray(picture).tobytes() != found.pixels.tobytes()
    assert found._repr_png_().startswith(b"\x89PNG")


def test_by_hand():
    boxes = np.array([[0.25, 0.1, 0.75, 0.5], [0, 0, 1 / 3, 1]])
    scores, classes = np.array([0.9, 0.25]), np.array([2, 3])
    found = Detections(boxes, scores, classes, ("cat", "dog"), (40, 60))
    assert found.class_names == ["dog", "3"]
    np.testing.assert_array_equal(
        found.pixel_boxes, [[10, 6, 30, 30], [0, 0, 13.333, 60]]
    )
    assert repr(found) == "Detections(dog 0.90, 3 0.25)"
    assert found[np.array([False, True])].class_names == ["3"]
    with pytest.raises(ValueError, match="pixels of the image are unknown"):
        found.plot()


def test_a_url_is_a_server():
    server = ssd_tf.load_detector("http://127.0.0.1:8501/v1/models/ssd")
    assert server.source["checkpoint"] == "rest://127.0.0.1:8501/ssd"
    for url in (
        "http://127.0.0.1:8501",
        "https://a:1/v1/models/b",
        "ftp://a/b",
    ):
        with pytest.raises(UserError, match="expected http://HOST:8501/v1"):
            ssd_tf.load_detector(url)


def test_the_public_face_is_lazy(run_script):
    script = """
import sys, ssd_tf
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
names = dir(ssd_tf)
print(len(names), all(getattr(ssd_tf, name) is not None for name in names))
print(ssd_tf.train.__module__, ssd_tf.evaluate.__module__)
"""
    assert run_script(script).splitlines()[-2:] == [
        "12 True",
        "ssd_tf.training.train ssd_tf.evaluation.run",
    ]
