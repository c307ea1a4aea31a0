"""The tf.Example schema and the reading of shards."""

import numpy as np
import pytest
import tensorflow as tf
import voc_tree

from ssd_tf.command import UserError
from ssd_tf.datasets import catalog, records
from ssd_tf.datasets.annotation import Annotation

CLASSES = ["cat", "dog"]
JPEG = voc_tree.picture()


def annotate(source_id="one", count=2, **fields):
    boxes = np.linspace(0, 1, 4 * count + 1)[1:].reshape(-1, 4)
    names = (["dog", "cat"] * count)[:count]
    return Annotation(
        source_id, "x.xml", 40, 60, boxes, names, image_bytes=JPEG, **fields
    )


def parse(example):
    parsed = records.parse_example(example.SerializeToString())
    return {key: value.numpy() for key, value in parsed.items()}


def foreign(**features):
    """A tf.Example by hand; keys have `__` for `/`."""
    kinds = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
    example = tf.train.Example()
    for key, values in features.items():
        feature = example.features.feature[key.replace("__", "/")]
        getattr(feature, kinds[type(values[0])]).value.extend(values)
    return example


def boxes_by_hand(*boxes):
    """The four coordinate lists of ymin, xmin, ymax, xmax boxes."""
    corners = ("ymin", "xmin", "ymax", "xmax")
    return {
        f"image__object__bbox__{corner}": [float(box[index]) for box in boxes]
        for index, corner in enumerate(corners)
    }


def write_split(folder, split, *shards):
    """Shards of annotations whose ids are given."""
    names = catalog.shard_names(split, len(shards))
    for name, ids in zip(names, shards, strict=True):
        records.write_shard(folder / name, map(annotate, ids), CLASSES)


def read_ids(folder, split, **options):
    dataset = records.read(folder, split, **options)
    return [item["source_id"].decode() for item in dataset.as_numpy_iterator()]


def test_what_is_written_is_parsed():
    written = annotate(difficult=[True, False], crowd=[False, True])
    parsed = parse(records.to_example(written, CLASSES))
    assert parsed["image"] == JPEG and parsed["source_id"] == b"one"
    np.testing.assert_array_equal(parsed["boxes"], written.boxes)
    assert parsed["labels"].tolist() == [2, 1]
    assert parsed["difficult"].tolist() == [True, False]
    assert parsed["crowd"].tolist() == [False, True]
    assert parsed["boxes"].dtype == np.float32
    assert parsed["labels"].dtype == np.int64
    assert parsed["difficult"].dtype == parsed["crowd"].dtype == bool


def test_no_boxes():
    parsed = parse(records.to_example(annotate(count=0), CLASSES))
    assert parsed["boxes"].shape == (0, 4)
    assert parsed["labels"].shape == parsed["crowd"].shape == (0,)


def test_schema_is_that_of_the_object_detection_api():
    written = annotate(truncated=[False, True], poses=["Left", "Rear"])
    example = records.to_example(written, CLASSES)

    def values(key):
        feature = example.features.feature[key]
        return list(getattr(feature, feature.WhichOneof("kind")).value)

    assert sorted(example.features.feature) == sorted(
        [
            *(f"image/{key}" for key in "encoded format height width".split()),
            *("image/filename", "image/source_id", "image/key/sha256"),
            *(f"image/object/bbox/{c}" for c in "ymin xmin ymax xmax".split()),
            *("image/object/class/text", "image/object/class/label"),
            *("image/object/difficult", "image/object/truncated"),
            *("image/object/is_crowd", "image/object/group_of"),
            *("image/object/area", "image/object/view"),
        ]
    )
    assert values("image/height") == [40] and values("image/width") == [60]
    assert values("image/format") == [b"jpeg"]
    assert values("image/object/class/text") == [b"dog", b"cat"]
    assert values("image/object/class/label") == [2, 1]
    assert values("image/object/truncated") == [0, 1]
    assert values("image/object/view") == [b"Left", b"Rear"]
    np.testing.assert_allclose(
        values("image/object/area"), [0.25 * 0.25 * 2400] * 2, rtol=1e-6
    )
    assert len(values("image/key/sha256")[0]) == 64


def test_object_detection_api_file_without_optional_keys():
    example = foreign(
        image__encoded=[JPEG],
        image__source_id=[b"139"],
        image__filename=[b"000139.jpg"],
        image__object__class__label=[3, 1],
        image__object__class__text=[b"car", b"person"],
        **boxes_by_hand((0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8)),
    )
    parsed = parse(example)
    np.testing.assert_allclose(
        parsed["boxes"], [[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]]
    )
    assert parsed["labels"].tolist() == [3, 1]
    assert parsed["difficult"].tolist() == [False, False]
    assert parsed["crowd"].tolist() == [False, False]
    assert parsed["source_id"] == b"139"


def test_crowds_groups_and_short_lists():
    boxes = boxes_by_hand((0, 0, 1, 1), (0, 0, 1, 1), (0, 0, 1, 1))
    parsed = parse(
        foreign(
            image__encoded=[JPEG],
            image__filename=[b"a.jpg"],
            image__object__class__label=[1, 1, 1],
            image__object__difficult=[1],
            image__object__is_crowd=[1, 0, 0],
            image__object__group_of=[0, 0, 1],
            **boxes,
        )
    )
    assert parsed["difficult"].tolist() == [True, False, False]
    assert parsed["crowd"].tolist() == [True, False, True]
    assert parsed["source_id"] == b"a.jpg"


def test_keys_of_ssd_tensorflow():
    def example(image):
        return foreign(
            image__encoded=[image],
            image__format=[b"JPEG"],
            image__shape=[40, 60, 3],
            image__object__bbox__label=[7, 12],
            image__object__bbox__difficult=[0, 1],
            **boxes_by_hand((0, 0, 0.5, 1), (0.25, 0, 1, 1)),
        )

    parsed = parse(example(JPEG))
    assert parsed["labels"].tolist() == [7, 12]
    assert parsed["difficult"].tolist() == [False, True]
    # No id of any sort: one of the image's own.
    other = parse(example(voc_tree.picture(mode="L")))
    assert parsed["source_id"] not in (b"", other["source_id"])


def test_labels_that_do_not_fit_the_boxes_are_refused():
    example = foreign(
        image__encoded=[JPEG],
        image__object__class__text=[b"cat"],
        **boxes_by_hand((0, 0, 1, 1)),
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="as many labels"):
        parse(example)


def test_read_in_order_and_again(tmp_path):
    write_split(tmp_path, "train", ["a", "b"], ["c"], ["d"])
    assert read_ids(tmp_path, "train") == ["a", "b", "c", "d"]
    dataset = records.read(tmp_path, "train")
    assert [len(list(dataset)) for _ in range(2)] == [4, 4]


def test_read_feeds_map_and_batch(tmp_path):
    shard = tmp_path / catalog.shard_names("train", 1)[0]
    annotations = [annotate(count=count) for count in (2, 0, 1)]
    records.write_shard(shard, annotations, CLASSES)

    def decode(item):
        image = tf.io.decode_image(
            item["image"], channels=3, expand_animations=False
        )
        return item | {"image": image}

    dataset = records.read(tmp_path, "train").map(decode)
    dataset = dataset.padded_batch(
        3,
        {
            "image": [40, 60, 3],
            "boxes": [None, 4],
            "labels": [None],
            "difficult": [None],
            "crowd": [None],
            "area": [None],
            "height": [],
            "width": [],
            "source_id": [],
        },
    )
    [batch] = dataset
    assert batch["image"].shape == (3, 40, 60, 3)
    assert batch["labels"].numpy().tolist() == [[2, 1], [0, 0], [2, 0]]


def test_the_order_of_files_follows_from_the_seed(tmp_path):
    ids = [f"{index:02d}" for index in range(40)]
    write_split(tmp_path, "train", *([name] for name in ids))
    first, again, other = (
        read_ids(tmp_path, "train", seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert sorted(first) == sorted(other) == ids
    # The order of another process, on another day.
    assert first[:6] == ["29", "00", "26", "05", "11", "34"]


def test_a_reader_works_inside_a_graph(tmp_path):
    ids = [f"{index:02d}" for index in range(5)]
    write_split(tmp_path, "train", *([name] for name in ids))
    read = records.reader(tmp_path, "train")
    passes = tf.data.Dataset.range(1, 4).flat_map(read)
    found = [item["source_id"].decode() for item in passes.as_numpy_iterator()]
    assert found == [
        name
        for seed in (1, 2, 3)
        for name in read_ids(tmp_path, "train", seed=seed)
    ]


def test_same_bytes_every_time(tmp_path):
    entries = [
        records.write_shard(tmp_path / name, map(annotate, ["a", "b"]), CLASSES)
        for name in ("x.tfrecord", "y.tfrecord")
    ]
    assert entries[0]["sha256"] == entries[1]["sha256"]
    assert entries[0]["images"] == 2
    assert entries[0]["size"] == (tmp_path / "x.tfrecord").stat().st_size


def test_failed_shard_leaves_nothing(tmp_path):
    def broken():
        yield annotate()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        records.write_shard(tmp_path / "x.tfrecord", broken(), CLASSES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name, split",
    [
        ("voc_2007_train_000.tfrecord", "voc_2007_train_*.tfrecord"),
        ("voc_2007_train_000.tfrecord", "voc_2007_train_000.tfrecord"),
        ("voc_2007_train_000.tfrecord", "voc_2007_train_000"),
        ("train.record", "train"),
        ("coco_train.record-00000-of-00001", "coco_train"),
        ("train.tfrecord-00000-of-00001", "train"),
        ("train-00000-of-00001", "train"),
    ],
)
def test_files_of_other_tools(tmp_path, name, split):
    records.write_shard(tmp_path / name, [annotate("a")], CLASSES)
    assert read_ids(tmp_path, split) == ["a"]


def test_missing_split_names_those_there(tmp_path):
    write_split(tmp_path, "train", ["a"])
    write_split(tmp_path, "val", ["a"])
    with pytest.raises(UserError, match="no split 'test'.*: train, val$"):
        records.read(tmp_path, "test")
    with pytest.raises(UserError, match="no such folder"):
        records.read(tmp_path / "none", "test")


def test_missing_shard_is_noticed(tmp_path):
    write_split(tmp_path, "train", ["a"], ["b"])
    (tmp_path / "train-00001-of-00002.tfrecord").unlink()
    with pytest.raises(UserError, match="1 of 00002 shards"):
        records.read(tmp_path, "train")


def test_class_names_of_a_folder(tmp_path):
    with pytest.raises(UserError, match="labels.txt"):
        catalog.class_names(tmp_path)
    (tmp_path / "label_map.pbtxt").write_text("item { id: 1 name: 'cow' }")
    assert catalog.class_names(tmp_path) == ["cow"]
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    assert catalog.class_names(tmp_path) == ["cat", "dog"]


@pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
def test_missing_or_broken_manifest(tmp_path, text):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="manifest.json"):
        catalog.read_manifest(tmp_path)


@pytest.fixture
def foreign_split(tmp_path):
    """Records of another tool, without a manifest: labels 2 and 1, then 2."""
    with tf.io.TFRecordWriter(str(tmp_path / "train.tfrecord")) as writer:
        for index, labels in enumerate(([2, 1], [2])):
            example = foreign(
                image__encoded=[JPEG],
                image__source_id=[f"picture {index}".encode()],
                **boxes_by_hand(*[(0, 0, 1, 1)] * len(labels)),
                image__object__class__label=labels,
            )
            writer.write(example.SerializeToString())
    return tmp_path


def test_images_are_counted_without_a_manifest_too(foreign_split):
    assert records.count(foreign_split, "train") == 2
    with pytest.raises(UserError, match="no split 'test'"):
        records.count(foreign_split, "test")
