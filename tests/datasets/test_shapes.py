"""The built-in data set."""

import hashlib
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ssd_tf.command import UserError
from ssd_tf.datasets.formats import shapes, voc

SMALL = {"num_train": 12, "num_test": 5, "image_size": (64, 96)}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return shapes.write_dataset(tmp_path_factory.mktemp("s") / "raw", **SMALL)


@pytest.fixture(scope="module")
def drawn():
    """Sixty pictures, not written to disk."""
    return [
        shapes.draw(np.random.default_rng(seed), 128, 160, f"p{seed}")
        for seed in range(60)
    ]


def digest(tree):
    whole = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        if path.is_file():
            whole.update(str(path.relative_to(tree)).encode())
            whole.update(path.read_bytes())
    return whole.hexdigest()


def test_tree_is_voc_with_real_jpegs(tree):
    assert voc.splits([tree]) == ["test", "train"]
    for split, count in (("train", 12), ("test", 5)):
        annotations = list(voc.read([tree], split))
        assert len(annotations) == count
        for annotation in annotations:
            with Image.open(annotation.image_path) as image:
                assert image.format == "JPEG"
                assert image.size == (annotation.width, annotation.height)
            assert 64 <= annotation.height <= 96
            assert set(annotation.names) <= set(shapes.HUES)


def test_same_bytes_in_another_process(tree, tmp_path):
    code = (
        "import sys; from ssd_tf.datasets.formats import shapes; "
        f"shapes.write_dataset(sys.argv[1], **{SMALL})"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "again")], check=True
    )
    assert digest(tmp_path / "again") == digest(tree)


def test_seed_and_split_change_the_pictures(tree, tmp_path):
    other = shapes.write_dataset(tmp_path / "other", **SMALL, seed=1)
    assert digest(other) != digest(tree)
    images = {path.read_bytes() for path in tree.glob("JPEGImages/*")}
    assert len(images) == 17


def test_pictures_vary(drawn):
    counts = [len(picture.names) for picture in drawn]
    assert min(counts) == 0 and max(counts) == 5
    names = [name for picture in drawn for name in picture.names]
    assert set(names) == set(shapes.HUES)
    assert min(map(names.count, shapes.HUES)) > len(names) / 8
    difficult = np.concatenate([picture.difficult for picture in drawn])
    assert 0 < difficult.mean() < 0.1
    truncated = np.concatenate([picture.truncated for picture in drawn])
    assert 0.05 < truncated.mean() < 0.5


def test_boxes_are_sound_and_large_enough(drawn):
    boxes = np.concatenate([picture.boxes for picture in drawn])
    difficult = np.concatenate([picture.difficult for picture in drawn])
    assert boxes.min() >= 0 and boxes.max() <= 1
    extent = boxes[:, 2:] - boxes[:, :2]
    assert (extent > 0).all()
    assert np.percentile(extent[~difficult], 5) > 0.15
    assert extent.max() < 0.8


def test_box_is_tight_around_the_colour():
    """A lone shape's saturated pixels reach its box on every side."""
    picture = next(
        picture
        for seed in range(100)
        if len(
            (
                picture := shapes.draw(
                    np.random.default_rng(seed), 128, 128, "p"
                )
            ).names
        )
        == 1
    )
    image = Image.open(io.BytesIO(picture.image_bytes)).convert("HSV")
    saturated = np.asarray(image.resize((128, 128)))[..., 1] > 110
    rows, columns = np.nonzero(saturated)
    seen = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    np.testing.assert_allclose(picture.boxes[0] * 128, seen, atol=3)


def test_same_settings_reuse_the_tree(tree):
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    assert shapes.write_dataset(tree, **SMALL) == tree
    after = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    assert before == after


def test_other_content_is_refused(tree, tmp_path):
    with pytest.raises(UserError, match="something other"):
        shapes.write_dataset(tree, num_train=3, num_test=1)
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="something other"):
        shapes.write_dataset(tmp_path, **SMALL)
    assert (tmp_path / "mine.txt").read_text() == "precious"
