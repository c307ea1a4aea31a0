"""What a net is taught, drawn: the loss's own anchors; the net stays as is."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config import presets, training
from ssd_tf.detect import drawing
from ssd_tf.input_pipeline.preprocessing import whiten
from ssd_tf.multibox import boxes as geometry
from ssd_tf.multibox import losses
from ssd_tf.multibox.anchor_axis import flatten_layers
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.training import pictures
from ssd_tf.training.step import make_encode

NAMES = ("square", "circle")
# Height and width 0.4; so small that no anchor has an IoU of 0.5 with it;
# ignored; padding.
BOXES = [[0.1, 0.1, 0.5, 0.5], [0.7, 0.7, 0.74, 0.74], [0.1, 0.6, 0.4, 0.9]]


@pytest.fixture(scope="module")
def net():
    params = dataclasses.replace(presets.SSD_128_MOBILENET_V2, num_classes=3)
    return SSDNet(params)


@pytest.fixture(scope="module")
def batch(net):
    """One image with boxes of each kind, one without any."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3))
    return {
        "image": whiten(tf.constant(pixels, tf.uint8), net.params),
        "boxes": tf.constant([[*BOXES, [0.0] * 4], [[0.0] * 4] * 4]),
        "labels": tf.constant([[1, 2, 1, 0], [0] * 4], tf.int64),
        "ignored": tf.constant([[False, False, True, False], [False] * 4]),
    }


def options_of(loss):
    """Those of `ssd_losses`."""
    return {k: v for k, v in vars(loss).items() if k != "force_match"}


def roles_of(net, batch, loss):
    outputs = net.model(batch["image"], training=False)
    found = pictures.roles_of_anchors(net, batch, outputs, loss)
    return outputs, pictures.Roles(*(role.numpy() for role in found))


@pytest.mark.parametrize("mining", ["image", "batch"])
def test_roles_are_those_of_the_loss(net, batch, mining):
    loss = training.LossParams(mining=mining)
    outputs, roles = roles_of(net, batch, loss)
    targets = make_encode(net, loss.match_threshold)(
        {key: batch[key] for key in ("boxes", "labels", "ignored")}
    )
    terms = losses.ssd_losses(
        outputs["logits"],
        outputs["localisations"],
        *targets,
        **options_of(loss),
    )
    logits = flatten_layers(outputs["logits"], 1)
    positives = roles.matched | roles.forced
    labels = np.where(positives, targets.gclasses, 0)
    each = losses.cross_entropy(logits, labels).numpy()
    count = positives.sum()
    # Sums of some 100 float32 numbers in another order.
    for mask, name in ((positives, "pos"), (roles.mined, "neg")):
        assert each[mask].sum() / count == pytest.approx(
            float(terms[f"cross_entropy_{name}"]), rel=1e-5
        )


def test_roles_by_hand(net, batch):
    loss = training.LossParams()
    _, roles = roles_of(net, batch, loss)
    assert not np.any(roles.mined & (roles.matched | roles.forced))
    # The small box alone needs to be given an anchor.
    assert roles.forced.sum(axis=1).tolist() == [1, 0]
    (index,) = np.flatnonzero(roles.forced[0])
    # Of all anchors one that overlaps it most, though far from half of it:
    # 0.04 of (19.2 / 128 = 0.15), squared.
    iou = geometry.iou_matrix(
        np.array(BOXES[1:2], np.float32), geometry.to_corners(net.flat_anchors)
    )
    assert iou[0, index] == iou.max()
    assert iou.max() == pytest.approx((0.04 / 0.15) ** 2, rel=1e-4)
    positives = (roles.matched | roles.forced).sum(axis=1)
    assert positives[0] > 1 and positives[1] == 0
    # Three per positive, and the least number where there is none.
    assert roles.mined.sum(axis=1).tolist() == [3 * positives[0], 3]
    plain = dataclasses.replace(loss, force_match=False)
    assert not roles_of(net, batch, plain)[1].forced.any()


def test_pictures_show_every_role_in_its_colour(net, batch):
    drawn = pictures.pictures(net, batch, training.LossParams(), NAMES)
    assert drawn.dtype == np.uint8
    side = 3 * 128  # the least multiple of 128 that is MIN_SIDE or more
    assert drawn.shape[::2] == (2, 3 * side) and drawn.shape[1] > side

    def has(image, panel, color):
        part = drawn[image][:side, panel * side : (panel + 1) * side]
        return (part == color).all(axis=-1).any()

    for panel, color in (
        (0, pictures.MATCHED),
        (0, pictures.FORCED),
        (0, pictures.IGNORED),
        (0, drawing.WHITE),
        (1, pictures.MINED),
        (1, drawing.WHITE),
    ):
        assert has(0, panel, color)
    # The image without boxes has negatives only.
    assert has(1, 1, pictures.MINED)
    assert not has(1, 0, pictures.MATCHED)
    assert not has(1, 0, drawing.WHITE)


def test_limit_and_what_else_a_batch_holds(net, batch):
    batch = {**batch, "source_id": tf.constant(["a", "b"])}
    for mining in ("image", "batch"):
        loss = training.LossParams(mining=mining)
        assert len(pictures.pictures(net, batch, loss, NAMES, 1)) == 1


def test_nothing_of_the_net_changes(net, batch):
    before = [variable.numpy() for variable in net.model.variables]
    pictures.pictures(net, batch, training.LossParams(), NAMES, 1)
    for old, variable in zip(before, net.model.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


@pytest.mark.parametrize("name", ["ssd_300_vgg", "ssd_300_mobilenet_v2"])
def test_pixels_come_back_from_the_whitened_image(name):
    params = presets.PRESETS[name]
    pixels = np.arange(256 * 3).reshape(16, 16, 3) % 256
    image = whiten(tf.constant(pixels, tf.uint8), params).numpy()
    np.testing.assert_array_equal(pictures.to_pixels(image, params), pixels)
