"""What tests of the conversion share."""

import pathlib

import tensorflow as tf

from ssd_tf.datasets import records


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
