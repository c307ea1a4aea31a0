"""The conversion: images, bad input, processes, the command."""

import collections
import hashlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
import voc_tree
from PIL import Image

from ssd_tf.command import UserError
from ssd_tf.datasets import catalog, images, records
from ssd_tf.datasets.convert.convert import convert


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def run(*arguments, **options):
    """Runs the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ssd_tf.datasets.convert", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def read(folder, split="all"):
    """The records of a split, images decoded."""
    items = []
    for item in records.read(folder, split).as_numpy_iterator():
        image = tf.io.decode_image(item["image"], channels=3).numpy()
        items.append(item | {"image": image, "encoded": item["image"]})
    return items


def visible(folder):
    return {
        path.name: path.read_bytes()
        for path in pathlib.Path(folder).iterdir()
        if path.is_file()
    }


def kinds(manifest, split="all"):
    """Kind -> action of every problem."""
    problems = manifest["splits"][split]["problems"]
    return {problem["kind"]: problem["action"] for problem in problems}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Twenty-five images in three splits; `e` has no boxes."""
    root = tmp_path_factory.mktemp("raw")
    names = [chr(ord("a") + index) for index in range(25)]
    for index, name in enumerate(names):
        boxes = [
            voc_tree.item("dog", (1, 1, 6 + index, 20), difficult=index % 2),
            voc_tree.item("cat", (31, 21, 60, 40)),
        ]
        voc_tree.add(root, name, *(boxes if name != "e" else []))
    voc_tree.add_split(root, "train", names[:20])
    voc_tree.add_split(root, "val", names[20:])
    return root


def test_manifest_and_files(raw, tmp_path):
    manifest = convert(raw, tmp_path, num_shards=3)
    assert manifest == json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["format_version"] == 1
    assert manifest["classes"] == ["cat", "dog"]
    train = manifest["splits"]["train"]
    assert train["source"] == {"format": "voc", "dataset_dir": [str(raw)]}
    assert (train["images"], train["boxes"]) == (20, 38)
    assert train["images_without_boxes"] == 1
    assert train["boxes_per_class"] == {"cat": 19, "dog": 19}
    assert train["difficult"] == 10
    assert train["problems"] == [] and train["problem_counts"] == {}
    assert [shard["images"] for shard in train["shards"]] == [6, 7, 7]
    for shard in train["shards"] + manifest["splits"]["val"]["shards"]:
        data = (tmp_path / shard["name"]).read_bytes()
        assert shard["size"] == len(data)
        assert shard["sha256"] == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "labels.txt").read_text() == "cat\ndog\n"
    assert catalog.class_names(tmp_path) == ["cat", "dog"]
    assert len(list(tmp_path.iterdir())) == 3 + 3 + 3


def test_records_of_a_conversion(raw, tmp_path):
    convert(raw, tmp_path, splits=["train"])
    items = read(tmp_path, "train")
    ids = [item["source_id"].decode() for item in items]
    assert ids == [chr(ord("a") + index) for index in range(20)]
    np.testing.assert_array_equal(
        items[1]["boxes"],
        np.array([[0, 0, 0.5, 7 / 60], [0.5, 0.5, 1, 1]], np.float32),
    )
    assert items[1]["labels"].tolist() == [2, 1]
    assert items[1]["difficult"].tolist() == [True, False]
    assert items[4]["boxes"].shape == (0, 4)
    assert items[0]["encoded"] == voc_tree.picture()


def test_same_bytes_with_one_and_two_processes(raw, tmp_path):
    for workers in (1, 2):
        convert(raw, tmp_path / str(workers), num_workers=workers)
    assert visible(tmp_path / "1") == visible(tmp_path / "2")


def test_converting_again_replaces_the_shards(raw, tmp_path):
    convert(raw, tmp_path, num_shards=4)
    convert(raw, tmp_path, splits=["train"], num_shards=2)
    names = sorted(path.name for path in tmp_path.glob("*.tfrecord"))
    assert names == catalog.shard_names("train", 2) + catalog.shard_names(
        "val", 4
    )
    manifest = catalog.read_manifest(tmp_path)
    assert set(manifest["splits"]) == {"train", "val"}
    assert len(read(tmp_path, "train")) == 20
    assert len(read(tmp_path, "val")) == 5


def test_a_later_split_keeps_the_numbering_of_classes(raw, tmp_path):
    convert(raw, tmp_path / "d", splits=["train"])
    for name in ("dog", "fish"):
        other = tmp_path / name
        voc_tree.add(other, "x", voc_tree.item(name))
    convert(tmp_path / "dog", tmp_path / "d")
    assert catalog.class_names(tmp_path / "d") == ["cat", "dog"]
    assert read(tmp_path / "d")[0]["labels"].tolist() == [2]
    before = visible(tmp_path / "d")
    with pytest.raises(UserError, match="classes cat, dog; these are fish"):
        convert(tmp_path / "fish", tmp_path / "d")
    assert visible(tmp_path / "d") == before


def bad_tree(root):
    """One good image with bad boxes, and every kind of bad image."""
    voc_tree.add(
        root,
        "boxes",
        voc_tree.item("cat", (11, 11, 30, 20)),
        voc_tree.item("cat", (10, 5, 10, 20)),
        voc_tree.item("cat", (30, 5, 10, 20)),
        voc_tree.item("cat", ("nan", 5, 10, 20)),
        voc_tree.item("cat", ("here", 5, 10, 20)),
        voc_tree.item("cat", (500, 500, 900, 900)),
        voc_tree.item("cat", (2, 2, 90, 20)),
        voc_tree.item("unicorn", (2, 2, 20, 20)),
    )
    voc_tree.add(root, "empty", image=b"")
    voc_tree.add(root, "garbage", image=b"this is no image")
    voc_tree.add(root, "truncated", image=voc_tree.picture(200, 300)[:-900])
    voc_tree.add(root, "resized", voc_tree.item(), size=(400, 600))
    voc_tree.add(root, "xml")
    (root / "Annotations" / "xml.xml").write_text("<annotation>")
    names = "boxes empty garbage truncated resized xml gone".split()
    voc_tree.add_split(root, "train", names)
    return root


def test_bad_input_is_named_and_the_rest_kept(tmp_path, capsys):
    root = bad_tree(tmp_path / "raw")
    manifest = convert(root, tmp_path / "d", class_names=["cat"])
    train = manifest["splits"]["train"]
    found = [
        (pathlib.Path(p["file"]).name, p["box"], p["kind"], p["action"])
        for p in train["problems"]
    ]
    assert sorted(found, key=str) == sorted(
        [
            ("boxes.xml", 1, "zero_area_box", "dropped"),
            ("boxes.xml", 2, "inverted_box", "dropped"),
            ("boxes.xml", 3, "not_finite_box", "dropped"),
            ("boxes.xml", 4, "not_finite_box", "dropped"),
            ("boxes.xml", 5, "outside_box", "dropped"),
            ("boxes.xml", 6, "outside_box", "clipped"),
            ("boxes.xml", 7, "unknown_class", "dropped"),
            ("empty.xml", None, "missing_image", "skipped"),
            ("garbage.jpg", None, "unreadable_image", "skipped"),
            ("truncated.jpg", None, "unreadable_image", "skipped"),
            ("resized.xml", None, "wrong_size", "mended"),
            ("xml.xml", None, "malformed_xml", "skipped"),
            ("gone.xml", None, "missing_xml", "skipped"),
        ],
        key=str,
    )
    counts = collections.Counter(kind for _, _, kind, _ in found)
    assert train["problem_counts"] == counts
    assert (train["images"], train["boxes"]) == (2, 3)
    boxes, resized = read(tmp_path / "d", "train")
    np.testing.assert_allclose(
        boxes["boxes"],
        [[0.25, 1 / 6, 0.5, 0.5], [1 / 40, 1 / 60, 0.5, 1]],
        rtol=1e-6,
    )
    # 30 x 20 pixels of the image there is, whatever the XML says of it.
    np.testing.assert_allclose(resized["boxes"], [[0, 0, 0.5, 0.5]])
    output = capsys.readouterr().out
    assert "WARNING, bad input: 1 inverted_box" in output
    assert "2 unreadable_image" in output


def test_zero_based_file_is_a_note(tmp_path):
    voc_tree.add(tmp_path / "raw", "a", voc_tree.item(box=(0, 0, 30, 20)))
    manifest = convert(tmp_path / "raw", tmp_path / "d", on_error="fail")
    assert kinds(manifest) == {"zero_based": "mended"}
    np.testing.assert_array_equal(
        read(tmp_path / "d")[0]["boxes"], [[0, 0, 0.5, 0.5]]
    )


@pytest.mark.parametrize("part", ["boxes", "truncated", "xml", "resized"])
def test_fail_stops_at_the_first(tmp_path, part):
    root = bad_tree(tmp_path / "raw")
    voc_tree.add(root, "good", voc_tree.item())
    voc_tree.add_split(root, "one", ["good", part])
    with pytest.raises(UserError, match=f"{part}.*--on_error=skip"):
        convert(root, tmp_path / "d", splits=["one"], on_error="fail")
    assert list((tmp_path / "d").iterdir()) == []


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


def test_user_mistakes(raw, tmp_path):
    def mistake(message, *arguments, **options):
        with pytest.raises(UserError, match=message):
            convert(*arguments, **options)

    out = tmp_path / "d"
    mistake("no such folder", "voc", [tmp_path / "none"], out)
    known = "no split 'tset'; there are train, val"
    mistake(known, "voc", [raw], out, ["tset"])
    mistake("received 'klingon'", "klingon", [raw], out)
    empty = tmp_path / "empty"
    (empty / "Annotations").mkdir(parents=True)
    mistake("no annotated image", "voc", [empty], out)
    voc_tree.add(empty, "a")
    mistake("no object in the whole data set", "voc", [empty], out)
    voc_tree.add(empty, "a", voc_tree.item(), image=b"x")
    mistake("none of its 1 images.*a.jpg", "voc", [empty], out)
    (tmp_path / "file").write_text("")
    mistake("cannot be written", "voc", [raw], tmp_path / "file" / "d")
    assert not out.exists() or list(out.iterdir()) == []


def test_command_skips_bad_input(tmp_path):
    root, folder = bad_tree(tmp_path / "raw"), tmp_path / "d"
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    done = run(
        f"--dataset_dir={root}",
        f"--output_dir={folder}",
        "--splits=train",
        f"--labels={tmp_path / 'names.txt'}",
        "--num_workers=2",
    )
    assert done.returncode == 0, done.stderr
    assert "train: 2 images, 3 boxes" in done.stdout
    assert "WARNING, bad input" in done.stdout
    assert catalog.class_names(folder) == ["dog", "cat"]
    assert read(folder, "train")[0]["labels"].tolist() == [2, 2]


def test_command_fails_at_bad_input(tmp_path):
    root = bad_tree(tmp_path / "raw")
    done = run(
        f"--dataset_dir={root}",
        f"--output_dir={tmp_path / 'd'}",
        "--on_error=fail",
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "empty.xml: missing_image" in done.stderr
    assert not list(tmp_path.glob("d/*"))


def test_command_shapes(tmp_path):
    done = run(
        "--format=shapes",
        f"--output_dir={tmp_path}",
        "--shapes_train=6",
        "--shapes_test=3",
    )
    assert done.returncode == 0, done.stderr
    splits = catalog.read_manifest(tmp_path)["splits"]
    assert {name: part["images"] for name, part in splits.items()} == {
        "train": 6,
        "test": 3,
    }
    assert len(list((tmp_path / "raw" / "JPEGImages").iterdir())) == 9


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--output_dir is missing"),
        (["--output_dir=d"], "--dataset_dir is missing"),
        (["--output_dir=d", "--dataset_dir=none"], "none: no such folder"),
        (["--format=klingon"], "klingon"),
        (
            ["--output_dir=d", "--dataset_dir=x", "--labels=none.txt"],
            "none.txt: class names cannot be read",
        ),
    ],
)
def test_command_mistakes_are_one_line(tmp_path, arguments, message):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.fixture
def large(tmp_path):
    """Images enough that a conversion can be caught at work."""
    root = tmp_path / "raw"
    image = voc_tree.picture(1200, 1600)
    for index in range(120):
        voc_tree.add(
            root, f"{index:03d}", voc_tree.item(), image=image, size=None
        )
    return root


def start(root, output_dir):
    """Starts the command with two processes, in a session of its own."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "ssd_tf.datasets.convert"),
            *(f"--dataset_dir={root}", f"--output_dir={output_dir}"),
            "--num_workers=2",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def growing_shards(folder):
    """Whether a shard is being written, under its temporary name."""
    return any(path.stat().st_size > 0 for path in folder.glob(".*.tmp/.*.tmp"))


def alive(session):
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_killed_conversion_leaves_nothing_and_nobody(large, tmp_path):
    folder = tmp_path / "d"
    process = start(large, folder)
    wait_for(lambda: growing_shards(folder))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    left = list(folder.iterdir())
    assert left and all(path.name.startswith(".") for path in left)
    # Its processes end by themselves.
    wait_for(lambda: not alive(process.pid))
    convert(large, folder)
    assert not list(folder.glob(".*"))
    assert len(list(records.read(folder, "all"))) == 120


@pytest.mark.slow
def test_killed_worker_ends_the_conversion(large, tmp_path):
    folder = tmp_path / "d"
    process = start(large, folder)
    wait_for(lambda: growing_shards(folder))
    children = pathlib.Path(
        f"/proc/{process.pid}/task/{process.pid}/children"
    ).read_text()
    workers = [
        int(child)
        for child in children.split()
        if b"spawn_main" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stderr.splitlines()[-1].startswith("error: a conversion process")
    assert list(folder.iterdir()) == []
