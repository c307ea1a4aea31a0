"""The conversion: shards, manifest, bad input, the command."""

import collections
import hashlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import voc_tree
from converted import kinds, read, visible

from ssd_tf.command import UserError
from ssd_tf.datasets import catalog
from ssd_tf.datasets.convert.convert import convert


def run(*arguments, **options):
    """Runs the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ssd_tf.datasets.convert", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


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
    (tmp_path / "cat.txt").write_text("cat\n")
    manifest = convert(root, tmp_path / "d", labels=tmp_path / "cat.txt")
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


def test_user_mistakes(raw, tmp_path):
    def mistake(message, *arguments, **options):
        with pytest.raises(UserError, match=message):
            convert(*arguments, **options)

    out = tmp_path / "d"
    mistake("no such folder", [tmp_path / "none"], out)
    known = "no split 'tset'; there are train, val"
    mistake(known, [raw], out, splits=["tset"])
    mistake("format=klingon: expected one of voc", raw, out, format="klingon")
    empty = tmp_path / "empty"
    (empty / "Annotations").mkdir(parents=True)
    mistake("no annotated image", [empty], out)
    voc_tree.add(empty, "a")
    mistake("no object in the whole data set", [empty], out)
    voc_tree.add(empty, "a", voc_tree.item(), image=b"x")
    mistake("none of its 1 images.*a.jpg", [empty], out)
    (tmp_path / "file").write_text("")
    mistake("cannot be written", [raw], tmp_path / "file" / "d")
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
