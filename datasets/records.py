"""TFRecord shards: the tf.Example schema, written and parsed in one place.

The keys are those of the TF Object Detection API, so that its files and
EfficientDet's are read as they are; SSD-TensorFlow's own keys
(`image/object/bbox/label`) are read too. Boxes are ymin, xmin, ymax, xmax in
[0, 1], labels count from 1. Nothing here knows who annotates or who trains.
"""

import contextlib
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import tensorflow as tf

from ssd_tf.command import files
from ssd_tf.datasets import catalog, shards
from ssd_tf.datasets.annotation import Annotation

_CORNERS = tuple(
    f"image/object/bbox/{corner}" for corner in ("ymin", "xmin", "ymax", "xmax")
)
_LABEL = "image/object/class/label"
_PORT_LABEL = "image/object/bbox/label"
_DIFFICULT = "image/object/difficult"
_PORT_DIFFICULT = "image/object/bbox/difficult"
_CROWD = "image/object/is_crowd"
_AREA = "image/object/area"
_GROUP = "image/object/group_of"  # Open Images' word for a crowd
_INTEGERS = (_LABEL, _PORT_LABEL, _DIFFICULT, _PORT_DIFFICULT, _CROWD, _GROUP)
# Files read at once, and so mixed, where the order is free.
_PARALLEL_FILES = 16


def to_example(
    annotation: Annotation, class_names: Sequence[str]
) -> tf.train.Example:
    """Returns one image as a tf.Example; `parse_example` reads it back.

    Args:
      annotation: clean, with the true size of its JPEG or PNG image.
      class_names: class k is element k - 1; holds all of the annotation's.
    """
    encoded = annotation.read_image()
    height, width = annotation.height, annotation.width
    ymin, xmin, ymax, xmax = annotation.boxes.T
    of_boxes = (ymax - ymin) * (xmax - xmin) * (height * width)
    stated = annotation.areas
    names = annotation.names
    strings = {
        "image/encoded": [encoded],
        "image/format": ["png" if encoded.startswith(b"\x89PNG") else "jpeg"],
        "image/filename": [annotation.filename],
        "image/source_id": [annotation.source_id],
        "image/key/sha256": [hashlib.sha256(encoded).hexdigest()],
        "image/object/class/text": names,
        "image/object/view": annotation.poses,
    }
    integers = {
        "image/height": [height],
        "image/width": [width],
        _LABEL: [class_names.index(name) + 1 for name in names],
        _DIFFICULT: annotation.difficult,
        "image/object/truncated": annotation.truncated,
        _CROWD: annotation.crowd,
        _GROUP: annotation.crowd,
    }
    floats = {
        **dict(zip(_CORNERS, annotation.boxes.T, strict=True)),
        _AREA: [
            own if area == 0 else area
            for own, area in zip(of_boxes, stated, strict=True)
        ],
    }
    features = {
        **{key: _bytes_feature(value) for key, value in strings.items()},
        **{key: _int64_feature(value) for key, value in integers.items()},
        **{key: _float_feature(value) for key, value in floats.items()},
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


def _bytes_feature(values):
    encoded = [tf.compat.as_bytes(value) for value in values]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))


def _int64_feature(values):
    return tf.train.Feature(
        int64_list=tf.train.Int64List(value=map(int, values))
    )


def _float_feature(values):
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def parse_example(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses one serialised tf.Example, inside or outside of `Dataset.map`.

    Args:
      serialized: string scalar.

    Returns:
      image: encoded bytes, string scalar. Decode it with
        `expand_animations=False`: other tools' files hold GIFs.
      boxes: float32 [M, 4], ymin, xmin, ymax, xmax in [0, 1]; M may be 0.
      labels: int64 [M], from 1.
      difficult: bool [M]; False where the file does not say.
      crowd: bool [M]; crowds (COCO) and groups (Open Images) alike.
      area: float32 [M], square pixels of what is in the boxes; 0 where the
        file does not say.
      height, width: int64 scalars, pixels, as the file states them; 0 where it
        does not.
      source_id: string scalar; the file name or a hash of the image where
        the file has none.

    Raises:
      tf.errors.InvalidArgumentError: no image, or not as many labels as
        boxes.
    """
    one_string = tf.io.FixedLenFeature([], tf.string, default_value="")
    one_integer = tf.io.FixedLenFeature([], tf.int64, default_value=0)
    parsed = tf.io.parse_single_example(
        serialized,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/source_id": one_string,
            "image/filename": one_string,
            **{key: _list_of(tf.float32) for key in _CORNERS},
            **{key: _list_of(tf.int64) for key in _INTEGERS},
            **{key: one_integer for key in ("image/height", "image/width")},
            _AREA: _list_of(tf.float32),
        },
    )
    boxes = tf.stack([parsed[key] for key in _CORNERS], axis=-1)  # [M, 4]
    count = tf.shape(boxes)[0]
    label = _first_given(parsed, _LABEL, _PORT_LABEL)
    tf.debugging.assert_equal(
        tf.size(label), count, "a record has not as many labels as boxes"
    )
    difficult = _first_given(parsed, _DIFFICULT, _PORT_DIFFICULT)
    return {
        "image": parsed["image/encoded"],
        "boxes": boxes,
        "labels": label,
        "difficult": _flags(difficult, count),
        "crowd": _flags(parsed[_CROWD], count) | _flags(parsed[_GROUP], count),
        "area": _padded(parsed[_AREA], count),
        "height": parsed["image/height"],
        "width": parsed["image/width"],
        "source_id": _source_id(parsed),
    }


def _list_of(dtype):
    return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)


def _first_given(parsed, key, other_key):
    values = parsed[key]
    return tf.cond(
        tf.size(values) > 0, lambda: values, lambda: parsed[other_key]
    )


def _flags(values, count):
    """Returns bool [count]; False for what is missing at the end."""
    return tf.cast(_padded(values, count), tf.bool)


def _padded(values, count):
    """Returns [count]; 0 for what is missing at the end."""
    missing = tf.maximum(count - tf.size(values), 0)
    return tf.pad(values[:count], [[0, missing]])


def _source_id(parsed):
    digest = tf.strings.to_hash_bucket_fast(parsed["image/encoded"], 2**62)
    candidates = tf.stack(
        [
            parsed["image/source_id"],
            parsed["image/filename"],
            tf.strings.as_string(digest),
        ]
    )
    return tf.boolean_mask(candidates, candidates != "")[0]


def write_shard(
    path: str | pathlib.Path,
    annotations: Iterable[Annotation],
    class_names: Sequence[str],
) -> dict[str, str | int]:
    """Writes one shard, which appears as a whole or not at all.

    Returns:
      Its entry in the manifest: name, images, size in bytes, sha256.
    """
    path, images = pathlib.Path(path), 0
    with files.replace_file(path) as temporary:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for annotation in annotations:
                example = to_example(annotation, class_names)
                # Plain serialisation orders the keys at random.
                writer.write(example.SerializeToString(deterministic=True))
                images += 1
        data = temporary.read_bytes()
    return {
        "name": path.name,
        "images": images,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def reader(
    dataset_dir: str | pathlib.Path,
    split: str,
    unreadable_shards: str = "fatal",
) -> Callable[[int | tf.Tensor | None], tf.data.Dataset]:
    """Finds a split's files now, to be read as often as one likes.

    Args:
      dataset_dir: a folder with converted data, ours or another tool's.
      split: name of a split, or a file name pattern; see
        `catalog.list_shards`.
      unreadable_shards: "fatal" or "skip", see `shards.usable`.

    Returns:
      A function from a seed to the images as dicts, once through; see
      `parse_example`. None gives the order of conversion. An integer, also
      an int64 scalar tensor inside a graph, gives the files in an order that
      follows from it in every process, many read at once and so mixed; mix
      further with `Dataset.shuffle`.

    Raises:
      UserError: no such folder or split, or a shard is not whole.
    """
    found = _usable(dataset_dir, split, unreadable_shards)
    paths = [str(shard.path) for shard in found]

    def read_pass(seed: int | tf.Tensor | None) -> tf.data.Dataset:
        if seed is None:
            dataset = tf.data.TFRecordDataset(paths)
        else:
            dataset = _mixed(paths, seed)
        return dataset.map(parse_example, num_parallel_calls=tf.data.AUTOTUNE)

    return read_pass


def _usable(dataset_dir, split, unreadable_shards):
    found = catalog.list_shards(dataset_dir, split)
    return shards.usable(found, unreadable_shards)


def _mixed(paths, seed):
    """Returns serialised records of files in an order that follows from the
    seed."""
    order = tf.random.experimental.stateless_shuffle(
        paths, tf.stack([tf.cast(seed, tf.int64), 0])
    )
    return tf.data.Dataset.from_tensor_slices(order).interleave(
        tf.data.TFRecordDataset,
        cycle_length=min(len(paths), _PARALLEL_FILES),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def read(
    dataset_dir: str | pathlib.Path,
    split: str,
    seed: int | tf.Tensor | None = None,
    unreadable_shards: str = "fatal",
) -> tf.data.Dataset:
    """Returns one pass over a split: `reader`, called with the seed."""
    return reader(dataset_dir, split, unreadable_shards)(seed)


def count(
    dataset_dir: str | pathlib.Path,
    split: str,
    unreadable_shards: str = "fatal",
) -> int:
    """Returns number of images that `read` gives; of our own data the
    manifest's.

    Raises:
      UserError: no such folder or split, or a shard is not whole.
    """
    found = _usable(dataset_dir, split, unreadable_shards)
    return sum(shard.images for shard in found)


@contextlib.contextmanager
def explained_errors(
    dataset_dir: str | pathlib.Path, *splits: str | None
) -> Iterator[None]:
    """Turns errors of reading the splits into one that names the shard.

    TensorFlow's DataLossError has lost the file's name, so that all shards
    are read again. If all can be, as after a short failure of a disk far
    away, it stays as it is.

    Raises:
      UserError: instead.
    """
    try:
        yield
    except tf.errors.DataLossError as error:
        paths = [
            shard
            for split in filter(None, splits)
            for shard in catalog.list_shards(dataset_dir, split)
        ]
        bad = shards.find_bad(paths)
        if not bad:
            raise
        raise shards.refusal(bad[0]) from error
