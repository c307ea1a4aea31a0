"""A bad batch, looked into: on nets whose faults are known."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf
from processes import error_of

from ssd_tf.config import presets, training
from ssd_tf.config import run as config
from ssd_tf.nets import checkpoint
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.training import nonfinite, replay

SIDE = 64
NAN = math.nan


def small(preset):
    """A preset on few pixels, with its first three layers."""
    blocks = 3 - len(preset.trunk_layers)
    return dataclasses.replace(
        preset,
        img_shape=(SIDE, SIDE),
        num_classes=4,
        extra_blocks=preset.extra_blocks[:blocks],
        **{
            field: getattr(preset, field)[:3]
            for field in (
                "feat_layers",
                "anchor_sizes",
                "anchor_ratios",
                "normalizations",
            )
        },
    )


@pytest.fixture(scope="module")
def vgg():
    """A net without batch norm."""
    return SSDNet(small(presets.SSD_300_VGG))


@pytest.fixture(scope="module")
def losses_of(vgg):
    """Its loss terms of a batch; compiled for one and for two images."""
    return replay.make_losses(vgg, training.LossParams())


@pytest.fixture(scope="module")
def mobilenet():
    """A net with batch norm."""
    return SSDNet(small(presets.SSD_128_MOBILENET_V2))


@pytest.fixture
def restored(vgg):
    """The net, whose weights may be spoiled."""
    weights = vgg.model.get_weights()
    yield vgg
    vgg.model.set_weights(weights)


def make_batch(images=2):
    """Two boxes in the first image, one in the others, then padding."""
    random = np.random.default_rng(0)
    boxes = np.zeros((images, 8, 4), np.float32)
    labels = np.zeros((images, 8), np.int64)
    boxes[:, 0], labels[:, 0] = (0.1, 0.2, 0.5, 0.7), 1
    boxes[0, 1], labels[0, 1] = (0.5, 0.5, 0.9, 0.8), 3
    shape = (images, SIDE, SIDE, 3)
    return {
        "image": random.uniform(-100, 100, shape).astype(np.float32),
        "boxes": boxes,
        "labels": labels,
        "ignored": labels < 0,
        "source_id": np.array([f"photo{index}" for index in range(images)]),
    }


def test_the_loss_of_an_image_is_that_of_the_net(vgg, losses_of):
    batch = make_batch()
    rows = replay.losses_by_image(losses_of, batch)
    assert len(rows) == 2
    for index, row in enumerate(rows):
        # The other way there: the port's methods, layer by layer.
        _, localisations, logits, _ = vgg.net(batch["image"][index][None])
        targets = vgg.bboxes_encode(
            batch["labels"][index][None],
            batch["boxes"][index][None],
            vgg.anchors(),
        )
        expected = vgg.losses(logits, localisations, *targets)
        assert set(row) == {"loss", *expected}
        for name, value in expected.items():
            # Sums of some thousand float32 losses in another order.
            np.testing.assert_allclose(row[name], value, rtol=1e-5)
        total = sum(float(value) for value in expected.values())
        np.testing.assert_allclose(row["loss"], total, rtol=1e-5)


def test_only_the_bad_image_has_a_bad_loss(losses_of):
    batch = make_batch()
    batch["image"][1, 5, 5, 0] = NAN
    good, bad = replay.losses_by_image(losses_of, batch)
    assert math.isfinite(good["loss"]) and not math.isfinite(bad["loss"])


def test_gradients_of_twice_the_same_image_are_those_of_one(vgg, losses_of):
    one = make_batch(images=1)
    twice = {key: np.concatenate([x, x]) for key, x in one.items()}
    expected = dict(replay.gradient_norms(vgg, losses_of, one))
    found = replay.gradient_norms(vgg, losses_of, twice)
    norms = [norm for _, norm in found]
    assert norms == sorted(norms, reverse=True) and norms[-1] >= 0
    layers = {
        variable.path.rpartition("/")[0]
        for variable in vgg.model.trainable_variables
    }
    assert {name for name, _ in found} == layers == expected.keys()
    for name, norm in found:
        # Other sums in the convolutions' gradients, in float32.
        np.testing.assert_allclose(norm, expected[name], rtol=1e-3)


def test_a_bad_gradient_stands_first(restored, losses_of):
    kernel = restored.model.get_layer("conv1.conv1_1").kernel
    kernel.assign(tf.fill(kernel.shape, NAN))
    found = replay.gradient_norms(restored, losses_of, make_batch(1))
    assert math.isnan(found[0][1])


def test_a_finite_net(mobilenet):
    assert replay.first_bad_layer(mobilenet, make_batch()["image"]) is None


def test_the_first_bad_layer(restored):
    def found():
        return replay.first_bad_layer(restored, images)

    images = make_batch()["image"]
    # TensorFlow's ReLU on a CPU makes 0 of it.
    bias = restored.model.get_layer("conv5.conv5_2").bias
    bias.assign(tf.fill(bias.shape, NAN))
    assert found() in (
        "conv5.conv5_2 (bias)",
        "conv5.conv5_2 (bias, output)",
    )
    # Weights that are numbers, but too large for their products to be.
    kernel = restored.model.get_layer("conv2.conv2_1").kernel
    kernel.assign(tf.fill(kernel.shape, 3e38))
    assert found() == "conv2.conv2_1 (output)"
    images[1, 0, 0, 0] = np.inf
    assert found() == "images (output)"


def test_bad_boxes_of_a_batch():
    batch = make_batch()
    assert replay.bad_boxes(batch, num_classes=4) == []
    batch["boxes"][0, 0, 1] = NAN
    batch["boxes"][1, 0] = (0.9, 0.25, 0.1, 0.5)
    batch["labels"][0, 1] = 7
    batch["boxes"][1, 5] = NAN  # padding, whatever it holds
    assert replay.bad_boxes(batch, num_classes=4) == [
        ("photo0", "0.1, nan, 0.5, 0.7", "not a number"),
        ("photo0", "0.5, 0.5, 0.9, 0.8", "label 7 without a class"),
        ("photo1", "0.9, 0.25, 0.1, 0.5", "inverted"),
    ]
    empty = {key: values[:0] for key, values in batch.items()}
    assert replay.bad_boxes(empty, num_classes=4) == []


@pytest.fixture
def train_dir(tmp_path, vgg):
    """A run's config.json, without a checkpoint."""
    names = ("a", "b", "c")
    config.save(config.Config(small(presets.SSD_300_VGG), names), tmp_path)
    return tmp_path


def leave(train_dir, batch):
    """Leaves a batch as a stopped run does."""
    path = train_dir / "nonfinite_step_5.npz"
    arrays = {key: x for key, x in batch.items() if key != "source_id"}
    nonfinite.dump(path, arrays, batch["source_id"])
    return path


def look(train_dir, path, capsys):
    replay.main(replay.ReplayOptions(str(train_dir), str(path)))
    return capsys.readouterr().out


def test_the_command_shows_all(train_dir, restored, capsys):
    bias = restored.model.get_layer("conv4.conv4_1").bias
    bias.assign(tf.fill(bias.shape, NAN))
    checkpoint.save_weights(restored, train_dir)
    batch = make_batch()
    batch["boxes"][1, 0, 2] = 0.1
    output = look(train_dir, leave(train_dir, batch), capsys)
    assert f"weights: {train_dir / 'ckpt-0'}; computed in float32" in output
    assert "first layer that is not finite: conv4.conv4_1 (bias" in output
    assert "of no area" in output and "photo1" in output
    assert "nan" in output
    assert "the 10 largest of " in output


@pytest.mark.slow
def test_the_command_before_the_first_checkpoint(train_dir, capsys):
    output = look(train_dir, leave(train_dir, make_batch()), capsys)
    assert "weights: initial ones, for nothing was saved yet" in output
    assert "all boxes are good" in output
    assert "first layer that is not finite: none" in output
    assert "nan" not in output.replace("nonfinite", "")


def test_mistakes(train_dir, tmp_path):
    batch = leave(train_dir, make_batch())
    command = ("-m", "ssd_tf.training.replay")
    assert "--batch is missing" in error_of(
        *command, f"--train_dir={train_dir}"
    )
    none = error_of(*command, f"--train_dir={train_dir}", "--batch=none.npz")
    assert "none.npz: not found; --batch wants" in none
    other = dataclasses.replace(small(presets.SSD_300_VGG), img_shape=(32, 128))
    config.save(config.Config(other, ("a", "b", "c")), train_dir)
    wrong = error_of(*command, f"--train_dir={train_dir}", f"--batch={batch}")
    assert "images of 64x64 pixels" in wrong and "takes 32x128" in wrong
