"""One device, two logical devices, two processes: the same training."""

import json
import socket

import numpy as np
import pytest
from processes import finish, start_training

STEPS = 8


def free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def run_workers(dataset_dir, train_dir):
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    tasks = [{"type": "worker", "index": index} for index in range(2)]
    workers = [
        start_training(
            "worker",
            "vgg",
            dataset_dir,
            train_dir,
            STEPS,
            TF_CONFIG=json.dumps({"cluster": cluster, "task": task}),
        )
        for task in tasks
    ]
    for worker in workers:
        finish(worker)


def loss_terms(train_dir):
    lines = (train_dir / "metrics.jsonl").read_text("utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["step"] for entry in entries] == list(range(1, STEPS + 1))
    return np.array([list(entry.values()) for entry in entries])


@pytest.mark.slow
def test_replicas_do_not_change_the_loss(shapes_data, tmp_path):
    for mode in ("one", "mirrored"):
        finish(start_training(mode, "vgg", shapes_data, tmp_path / mode, STEPS))
    run_workers(shapes_data, tmp_path / "workers")
    # Four digits. Sums in another order differ by 1e-7 at first, and every
    # step multiplies that: here to 1e-4 or 2e-4 at the eighth.
    for mode in ("mirrored", "workers"):
        np.testing.assert_allclose(
            loss_terms(tmp_path / mode),
            loss_terms(tmp_path / "one"),
            rtol=5e-4,
            err_msg=mode,
        )
    saved = sorted(path.name for path in (tmp_path / "workers").iterdir())
    assert "ckpt-8.index" in saved
    # The other worker's copy of the checkpoint is gone.
    assert not [name for name in saved if name.startswith(".worker")]
