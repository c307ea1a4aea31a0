"""Conversions that are killed, or lose one of their processes."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import voc_tree

from ssd_tf.datasets import records
from ssd_tf.datasets.convert.convert import convert


@pytest.fixture
def large(tmp_path):
    """Images enough that a conversion can be caught at work."""
    root = tmp_path / "raw"
    image = voc_tree.picture(1200, 1600)
    for index in range(120):
        voc_tree.add(
            root, f"{index:03d}", voc_tree.item(), image=image, size=None
        )
    return root


def start(root, output_dir):
    """Starts the command with two processes, in a session of its own."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "ssd_tf.datasets.convert"),
            *(f"--dataset_dir={root}", f"--output_dir={output_dir}"),
            "--num_workers=2",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def growing_shards(folder):
    """Whether a shard is being written, under its temporary name."""
    return any(path.stat().st_size > 0 for path in folder.glob(".*.tmp/.*.tmp"))


def alive(session):
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_killed_conversion_leaves_nothing_and_nobody(large, tmp_path):
    folder = tmp_path / "d"
    process = start(large, folder)
    wait_for(lambda: growing_shards(folder))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    left = list(folder.iterdir())
    assert left and all(path.name.startswith(".") for path in left)
    # Its processes end by themselves.
    wait_for(lambda: not alive(process.pid))
    convert(large, folder)
    assert not list(folder.glob(".*"))
    assert len(list(records.read(folder, "all"))) == 120


@pytest.mark.slow
def test_killed_worker_ends_the_conversion(large, tmp_path):
    folder = tmp_path / "d"
    process = start(large, folder)
    wait_for(lambda: growing_shards(folder))
    children = pathlib.Path(
        f"/proc/{process.pid}/task/{process.pid}/children"
    ).read_text()
    workers = [
        int(child)
        for child in children.split()
        if b"spawn_main" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stderr.splitlines()[-1].startswith("error: a conversion process")
    assert list(folder.iterdir()) == []
