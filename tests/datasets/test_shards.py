"""Damaged shards and bad annotations: found, named, refused or left out."""

import gzip
import json

import numpy as np
import pytest
import tensorflow as tf
import voc_tree

from ssd_tf.command import UserError
from ssd_tf.datasets import catalog, record_check, records, shards
from ssd_tf.datasets.annotation import Annotation

CLASSES = ["cat", "dog"]
JPEG = voc_tree.picture()
DATA = [b"first", b"other", b"third"]
# 8 of length, 4 of its checksum, 5 of data, 4 of their checksum.
RECORD_SIZE = 21


@pytest.fixture
def path(tmp_path):
    """Three records, as TensorFlow writes them."""
    path = tmp_path / "x.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for data in DATA:
            writer.write(data)
    assert path.stat().st_size == 3 * RECORD_SIZE
    return path


def bad_files(*paths, deep=False):
    return shards.find_bad([catalog.Shard(path) for path in paths], deep)


def flip(path, offset):
    """Flips the lowest bit of a byte; a negative offset is from the end."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def read_by_tensorflow(path):
    """Number of records that TensorFlow gives, and whether it fails then."""
    number = 0
    try:
        for _ in tf.data.TFRecordDataset(str(path)):
            number += 1
    except tf.errors.DataLossError:
        return number, True
    return number, False


def test_whole_and_empty_files_are_whole(path, tmp_path):
    empty = tmp_path / "empty.tfrecord"
    empty.touch()
    assert read_by_tensorflow(empty) == (0, False)
    for deep in (False, True):
        assert bad_files(path, empty, deep=deep) == []


def test_cut_anywhere(path):
    content = path.read_bytes()
    for size in range(1, len(content)):
        path.write_bytes(content[:size])
        records_left, rest = divmod(size, RECORD_SIZE)
        # TensorFlow takes a cut length for the end and says nothing.
        assert read_by_tensorflow(path) == (records_left, rest >= 12)
        reason = f"truncated after {records_left} images"
        bad = shards.BadShard(path, reason, records_left)
        assert bad_files(path) == ([bad] if rest else []), size


@pytest.mark.parametrize("number", range(3))
def test_a_bit_lost_anywhere_as_tensorflow_finds_it(path, number):
    for place in range(RECORD_SIZE):
        flip(path, number * RECORD_SIZE + place)
        assert read_by_tensorflow(path) == (number, True)
        reason = f"damaged at byte {number * RECORD_SIZE} after {number} images"
        expected = [shards.BadShard(path, reason, number)]
        assert bad_files(path, deep=True) == expected
        # Data and their checksum are only compared by reading them.
        assert bad_files(path) == (expected if place < 12 else [])
        flip(path, number * RECORD_SIZE + place)
    assert bad_files(path, deep=True) == []


def test_the_data_of_a_cut_file_are_read_too(path):
    path.write_bytes(path.read_bytes()[:-1])
    flip(path, RECORD_SIZE + 14)
    [bad] = bad_files(path, deep=True)
    assert bad.reason == f"damaged at byte {RECORD_SIZE} after 1 images"
    assert bad.records == 1


def test_other_files(path, tmp_path):
    packed, zeros = tmp_path / "packed", tmp_path / "zeros"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    zeros.write_bytes(bytes(100))  # what a crash leaves of a file's tail
    found = bad_files(packed, path, tmp_path / "none", zeros)
    assert [bad.path.name for bad in found] == ["packed", "none", "zeros"]
    assert [bad.reason for bad in found] == [
        "compressed by gzip (gunzip it), unreadable after 0 images",
        "is missing",
        "damaged at byte 0 after 0 images",
    ]


def write_split(folder, manifest=True):
    """Split `train`: images a, b in the first shard, c, d in the second."""
    entries = []
    for name, ids in zip(
        catalog.shard_names("train", 2), ("ab", "cd"), strict=True
    ):
        annotations = [
            Annotation(
                each, "x.xml", 40, 60, np.zeros((0, 4)), (), image_bytes=JPEG
            )
            for each in ids
        ]
        entries.append(records.write_shard(folder / name, annotations, CLASSES))
    if manifest:
        stated = {"splits": {"train": {"images": 4, "shards": entries}}}
        (folder / catalog.MANIFEST).write_text(json.dumps(stated))
    return [folder / entry["name"] for entry in entries]


def read_ids(folder, **options):
    data = records.read(folder, "train", **options).as_numpy_iterator()
    return [record["source_id"].decode() for record in data]


def cut_in_second_record(path):
    path.write_bytes(path.read_bytes()[:-1])


def cut_behind_first_record(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    path.write_bytes(content[: length + 16])


@pytest.mark.parametrize(
    "damage, manifest, reason",
    [
        (cut_in_second_record, True, "truncated after 1 of 2 images"),
        (cut_in_second_record, False, "truncated after 1 images"),
        (
            cut_behind_first_record,
            True,
            r"has \d+ bytes, not the \d+ that manifest.json states, "
            "and 1 of 2 images",
        ),
        (lambda path: path.write_bytes(b""), True, "has 0 bytes.* 0 of 2 im"),
        (lambda path: path.unlink(), True, "is missing"),
        (lambda path: flip(path, 3), False, "damaged at byte 0 after 0 images"),
    ],
)
def test_a_damaged_shard_is_refused_or_left_out(
    tmp_path, capsys, damage, manifest, reason
):
    first, second = write_split(tmp_path, manifest)
    damage(second)
    for ask in (records.read, records.count):
        with pytest.raises(UserError, match=reason) as caught:
            ask(tmp_path, "train")
        assert str(caught.value).startswith(f"{second}: ")
        assert "--unreadable_shards=skip" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""

    assert records.count(tmp_path, "train", "skip") == 2
    assert read_ids(tmp_path, unreadable_shards="skip") == ["a", "b"]
    assert sorted(read_ids(tmp_path, seed=1, unreadable_shards="skip")) == [
        "a",
        "b",
    ]
    # Said once, whoever asks.
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"left out: {second} (")

    first.write_bytes(b"none")
    with pytest.raises(UserError, match="none of its 2 shards can be read"):
        records.count(tmp_path, "train", "skip")


@pytest.mark.parametrize("manifest", [True, False])
def test_a_mended_shard_is_read_again(tmp_path, manifest, capsys):
    _, second = write_split(tmp_path, manifest)
    content = second.read_bytes()
    cut_in_second_record(second)
    assert records.count(tmp_path, "train", "skip") == 2
    second.write_bytes(content)
    assert records.count(tmp_path, "train", "skip") == 4
    assert read_ids(tmp_path, unreadable_shards="skip") == list("abcd")
    assert read_ids(tmp_path) == list("abcd")


def test_an_unknown_policy_is_an_error(tmp_path):
    write_split(tmp_path)
    with pytest.raises(ValueError, match="fatal, skip; received 'no'"):
        records.read(tmp_path, "train", unreadable_shards="no")


@pytest.mark.parametrize("manifest", [True, False])
def test_a_lost_bit_is_explained_after_reading(tmp_path, manifest, capsys):
    _, second = write_split(tmp_path, manifest)
    flip(second, -1)  # of the checksum of the last image
    # Neither sizes nor lengths show it.
    assert records.count(tmp_path, "train") == 4
    with pytest.raises(tf.errors.DataLossError) as caught:
        read_ids(tmp_path, seed=3)
    assert str(second) not in str(caught.value)

    lost = caught.value
    assert isinstance(reraised(lost, tmp_path), UserError)
    of_all = " of 2" if manifest else ""
    explained = str(reraised(lost, tmp_path))
    assert explained.startswith(f"{second}: damaged at byte ")
    assert f"after 1{of_all} images" in explained
    assert records.count(tmp_path, "train", "skip") == 2
    assert "left out" in capsys.readouterr().out

    other = ValueError()
    assert reraised(other, tmp_path) is other
    flip(second, -1)  # it can be read again
    assert reraised(lost, tmp_path) is lost


def reraised(error, folder):
    """What becomes of an error of reading."""
    with (
        pytest.raises((type(error), UserError)) as caught,
        records.explained_errors(folder, "train"),
    ):
        raise error
    return caught.value


def write_foreign(path, *images):
    """Records without a manifest, of (id, boxes, labels)."""
    corners = ("ymin", "xmin", "ymax", "xmax")
    with tf.io.TFRecordWriter(str(path)) as writer:
        for source_id, boxes, labels in images:
            feature = tf.train.Example()
            put = feature.features.feature
            put["image/encoded"].bytes_list.value.append(JPEG)
            put["image/source_id"].bytes_list.value.append(source_id.encode())
            put["image/object/class/label"].int64_list.value.extend(labels)
            for index, corner in enumerate(corners):
                values = [box[index] for box in boxes]
                key = f"image/object/bbox/{corner}"
                put[key].float_list.value.extend(values)
            writer.write(feature.SerializeToString())


GOOD = (0.1, 0.1, 0.9, 0.9)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_box_that_is_no_number_is_refused(tmp_path, number):
    bad = (0.1, number, 0.9, 0.9)
    write_foreign(
        tmp_path / "train.tfrecord",
        ("fine", [GOOD], [1]),
        ("ill", [GOOD, bad], [1, 2]),
    )
    expected = f"ill has a box that is not a number: 0.1, {number}, 0.9, 0.9"
    with pytest.raises(UserError, match=expected):
        record_check.check_annotations(tmp_path, "train", 2)


@pytest.mark.parametrize("label", [0, 3, -1])
def test_a_label_without_a_name_is_refused(tmp_path, label):
    write_foreign(
        tmp_path / "train.tfrecord",
        ("fine", [GOOD], [2]),
        ("ill", [GOOD], [label]),
    )
    with pytest.raises(UserError, match=f"ill has label {label}.* 1 to 2"):
        record_check.check_annotations(tmp_path, "train", 2)
    # Our own data were checked when they were converted.
    (tmp_path / catalog.MANIFEST).write_text('{"splits": {}}')
    record_check.check_annotations(tmp_path, "train", 2)


def test_useless_boxes_are_counted_and_named(tmp_path, capsys):
    write_foreign(
        tmp_path / "train.tfrecord",
        ("empty", [], []),
        ("fine", [GOOD, (-0.2, 0, 0.5, 1.2)], [1, 2]),
        ("turned", [(0.9, 0.1, 0.1, 0.9), GOOD], [1, 1]),
        ("flat", [(0.1, 0.1, 0.1, 0.9), (0, 0, 0, 0)], [1, 1]),
        *((f"pixels{index}", [(10, 20, 30, 40)], [1]) for index in range(4)),
    )
    record_check.check_annotations(tmp_path, "train", 2)
    [line] = capsys.readouterr().out.splitlines()
    assert line == (
        f"{tmp_path}: train: 7 of 10 boxes match nothing: "
        "1 inverted (image turned); 2 of no area (image flat); "
        "4 outside the image (image pixels0, pixels1, pixels2, ...)"
    )


def test_good_boxes_need_no_word(tmp_path, capsys):
    write_foreign(tmp_path / "train.tfrecord", ("fine", [GOOD], [2]))
    record_check.check_annotations(tmp_path, "train", 2)
    assert capsys.readouterr().out == ""


def test_a_lost_bit_is_explained_by_the_check(tmp_path):
    path = tmp_path / "train.tfrecord"
    write_foreign(path, ("fine", [GOOD], [2]))
    flip(path, -1)
    with pytest.raises(UserError, match="tfrecord: damaged at byte 0 after 0"):
        record_check.check_annotations(tmp_path, "train", 2)


def test_why_boxes_are_useless():
    nan = np.nan
    boxes = np.array(
        [GOOD, (nan, 0, 1, 1), (1, 0, 0, 1), (0, 1, 1, 1), (1, 0, 2, 1)],
        np.float32,
    )
    assert record_check.why_useless(boxes) == [
        "",
        "not a number",
        "inverted",
        "of no area",
        "outside the image",
    ]
    assert record_check.why_useless(boxes[:0]) == []
