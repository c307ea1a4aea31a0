"""One device, two logical devices, two processes: the same training."""

import json

import numpy as np
import pytest
import train_process
from processes import SUPPORT, finish, start, start_training, start_workers

from ssd_tf.config import run as config
from ssd_tf.datasets import catalog
from ssd_tf.nets import checkpoint, scopes
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import transfer

STEPS = 8


def run_workers(dataset_dir, train_dir, net="vgg", steps=STEPS):
    for worker in start_workers(2, net, dataset_dir, train_dir, steps):
        finish(worker)


def loss_terms(train_dir):
    """By step, losses and rate [STEPS, n], and the gradient's norm [STEPS]."""
    lines = (train_dir / "metrics.jsonl").read_text("utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["step"] for entry in entries] == list(range(1, STEPS + 1))
    # All but a measurement of time.
    others = ("data_wait", "gradient_norm")
    losses = [
        [entry[name] for name in entry if name not in others]
        for entry in entries
    ]
    norms = [entry["gradient_norm"] for entry in entries]
    return np.array(losses), np.array(norms)


def assert_same_training(train_dir, other_dir):
    """Four digits of the losses.

    Sums in another order differ by 1e-7 at first, and every step multiplies
    that: to 1e-4 or 2e-4 at the eighth. The gradient turns where ReLUs open or
    close, and its norm of some hundred, in a net that has not learnt anything
    yet, by up to a hundredth with them (seen on a CPU without AVX-512).
    """
    losses, norms = loss_terms(train_dir)
    other_losses, other_norms = loss_terms(other_dir)
    np.testing.assert_allclose(losses, other_losses, rtol=5e-4)
    np.testing.assert_allclose(norms[0], other_norms[0], rtol=5e-4)
    np.testing.assert_allclose(norms, other_norms, rtol=3e-2)


@pytest.mark.slow
def test_replicas_do_not_change_the_loss(shapes_data, tmp_path):
    for mode in ("one", "mirrored"):
        finish(start_training(mode, "vgg", shapes_data, tmp_path / mode, STEPS))
    run_workers(shapes_data, tmp_path / "workers")
    for mode in ("mirrored", "workers"):
        assert_same_training(tmp_path / mode, tmp_path / "one")
    saved = sorted(path.name for path in (tmp_path / "workers").iterdir())
    assert "ckpt-8.index" in saved
    # The other worker's copy of the checkpoint is gone.
    assert not [name for name in saved if name.startswith(".worker")]


@pytest.mark.slow
def test_the_chief_evaluates_while_the_others_wait(shapes_data, tmp_path):
    # With batch norm, whose averages every worker has, and with averages.
    run_workers(shapes_data, tmp_path / "run", "validated", 4)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [
        (entry["step"], entry.get("split")) for entry in map(json.loads, lines)
    ]
    assert steps == [
        (1, None),
        (2, None),
        (2, "test"),
        (3, None),
        (4, None),
        (4, "test"),
    ]
    best = checkpoint.find(tmp_path / "run" / "best")
    assert checkpoint.step_of(best) in (2, 4)


def values(net):
    return {name: x.numpy() for name, x in net.variables_by_name().items()}


@pytest.mark.slow
def test_replicas_start_and_freeze_as_one_device_does(shapes_data, tmp_path):
    names = catalog.class_names(shapes_data)
    before = train_process.settings("vgg", ["whale", *names[:0:-1]], STEPS)
    source = SSDNet(before.params)
    checkpoint.save_weights(source, tmp_path / "source")
    config.save(before, tmp_path / "source")
    trained = ("conv7", "block8", "block8_box", "block4_box/conv_cls")
    for mode in ("one", "mirrored"):
        run = (mode, "vgg", shapes_data, tmp_path / mode, STEPS)
        start_from = (tmp_path / "source", *trained)
        finish(start(SUPPORT / "train_process.py", *run, *start_from))
    assert_same_training(tmp_path / "mirrored", tmp_path / "one")
    was = values(source)
    one, mirrored = (
        values(checkpoint.load_net(tmp_path / mode))
        for mode in ("one", "mirrored")
    )
    frozen = [name for name in was if not scopes.under(name, trained)]
    assert "conv6/weights" in frozen and len(frozen) < len(was)
    for name in frozen:
        np.testing.assert_array_equal(one[name], mirrored[name])
        if not transfer.has_rows(name):
            np.testing.assert_array_equal(one[name], was[name])
    for name in set(was).difference(frozen):
        assert not np.array_equal(mirrored[name], was[name]), name
    # A frozen head: whose class it was has moved from the end to the front.
    now, old = (
        each["block7_box/conv_cls/weights"].reshape(
            3, 3, 1024, -1, len(names) + 1
        )
        for each in (mirrored, was)
    )
    np.testing.assert_array_equal(now[..., 2:], old[..., :1:-1])
    np.testing.assert_array_equal(now[..., 0], old[..., 0])
    assert not np.array_equal(now[..., 1], old[..., 1])
