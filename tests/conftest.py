"""Golden values, ways to run a function, fresh processes."""

import dataclasses
import functools
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

TESTS = pathlib.Path(__file__).parent
# `import inputs` makes the inputs of the golden values again.
sys.path.insert(0, str(TESTS / "golden"))
# Read when TensorFlow is imported, also by the processes that tests start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def golden():
    """The port's own outputs, by the keys of tests/golden/README.md."""
    with np.load(TESTS / "golden" / "port_golden.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def run_script():
    """Runs Python source in a fresh process and returns what it printed."""

    def run(source, *args):
        done = subprocess.run(
            [sys.executable, "-c", source, *map(str, args)],
            cwd=TESTS.parent,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def _map_over_dataset(function):
    """`function`, run inside `tf.data.Dataset.map`."""
    import tensorflow as tf

    def mapped(*args):
        return (
            tf.data.Dataset.from_tensors(args)
            .map(function)
            .get_single_element()
        )

    return mapped


def _ways():
    import tensorflow as tf

    return {
        "eager": lambda function: function,
        "graph": tf.function,
        "xla": functools.partial(tf.function, jit_compile=True),
        "map": _map_over_dataset,
    }


@pytest.fixture(params=["eager", "graph", "xla", "map"])
def run_as(request):
    """Each way to run a function of tensors; a function to a function."""
    return _ways()[request.param]


@pytest.fixture(params=["graph", "xla"])
def compile_as(request):
    """The two ways to compile; a function to a function."""
    return _ways()[request.param]


@pytest.fixture(scope="session")
def shapes_data(tmp_path_factory):
    """A small converted copy of the built-in data: 48 train, 12 test."""
    from ssd_tf.datasets.convert.convert import convert
    from ssd_tf.datasets.formats import shapes

    root = tmp_path_factory.mktemp("shapes")
    raw = shapes.write_dataset(root / "raw", num_train=48, num_test=12)
    convert(raw, root / "data", num_workers=1)
    return root / "data"


@pytest.fixture
def without_boxes(shapes_data):
    """The records of `train` as if nothing were in the images."""
    from ssd_tf.datasets import records

    def emptied(record):
        of_boxes = ("boxes", "labels", "difficult", "crowd", "area")
        return record | {key: record[key][:0] for key in of_boxes}

    return records.read(shapes_data, "train").map(emptied)


@dataclasses.dataclass
class Trained:
    """A finished run of a few steps."""

    train_dir: pathlib.Path
    dataset_dir: pathlib.Path
    settings: object
    net: object

    def records(self, split="train"):
        """The records it was trained on, or another split's."""
        from ssd_tf.datasets import records

        return records.read(self.dataset_dir, split)

    def reader(self):
        """The reader of the records it was trained on."""
        from ssd_tf.datasets import records

        return records.reader(self.dataset_dir, "train")


@pytest.fixture(scope="session")
def trained(shapes_data, tmp_path_factory):
    """The small net, trained for `train_process.FIXTURE_STEPS` steps."""
    import train_process

    from ssd_tf.datasets import catalog, records
    from ssd_tf.training import train

    settings = train_process.settings(
        "mobilenet",
        catalog.class_names(shapes_data),
        train_process.FIXTURE_STEPS,
    )
    train_dir = tmp_path_factory.mktemp("trained")
    net = train.fit(
        settings, train_dir, records.reader(shapes_data, "train"), 48
    )
    return Trained(train_dir, shapes_data, settings, net)


@pytest.fixture(scope="session")
def lively(trained, pictures, tmp_path_factory):
    """A run whose net says something else of every place.

    Random weights, batch norm that has seen images, and large logits: after a
    few steps of training all scores are alike, and errors hide in ties.
    """
    import keras
    import tensorflow as tf

    from ssd_tf.config import run as config
    from ssd_tf.input_pipeline.batches import prepare_for
    from ssd_tf.nets import checkpoint
    from ssd_tf.nets.ssd import SSDNet

    keras.utils.set_random_seed(0)
    net = SSDNet(trained.net.params)
    prepare = prepare_for(net.params)
    images = tf.stack([prepare({"image": x})["image"] for x in pictures])
    for _ in range(100):
        net.model(images, training=True)
    for variable in net.model.variables:
        # Of the 1x1 convolutions that give the logits.
        if re.search(r"conv_cls(?!.*depthwise).*/kernel", variable.path):
            variable.assign(8.0 * variable)
    train_dir = tmp_path_factory.mktemp("lively")
    config.save(trained.settings, train_dir)
    checkpoint.save_weights(net, train_dir)
    return Trained(train_dir, trained.dataset_dir, trained.settings, net)


@pytest.fixture(scope="session")
def pictures(shapes_data):
    """Encoded JPEGs of different sizes."""
    folder = shapes_data.parent / "raw" / "JPEGImages"
    return [path.read_bytes() for path in sorted(folder.iterdir())[:3]]
