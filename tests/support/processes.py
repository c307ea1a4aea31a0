"""Starts the project's commands and training runs as real processes."""

import functools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

SUPPORT = pathlib.Path(__file__).parent
ROOT = SUPPORT.parents[1]
TIMEOUT = 600


def start(*command, **environment) -> subprocess.Popen:
    """Starts `python COMMAND...` without a GPU, at the project's root.

    Ctrl-C reaches it also where the tests run in the background, whose
    processes a shell tells to ignore it.
    """
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=functools.partial(
            signal.signal, signal.SIGINT, signal.SIG_DFL
        ),
    )


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start_training(mode, net, dataset_dir, train_dir, steps, **environment):
    """Starts train_process.py; see there."""
    script = SUPPORT / "train_process.py"
    return start(
        script, mode, net, dataset_dir, train_dir, steps, **environment
    )


def start_workers(number, net, dataset_dir, train_dir, steps):
    """One process, or as many as share every batch; the chief first."""
    if number == 1:
        return [start_training("one", net, dataset_dir, train_dir, steps)]
    run = ("worker", net, dataset_dir, train_dir, steps)
    workers = [f"127.0.0.1:{port}" for port in free_ports(number)]
    return [
        start_training(
            *run,
            TF_CONFIG=json.dumps(
                {
                    "cluster": {"worker": workers},
                    "task": {"type": "worker", "index": index},
                }
            ),
        )
        for index in range(number)
    ]


def wait_until(condition, process, seconds=300, pause=0.02) -> None:
    """Waits for what a process, which must not end before, will bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(pause)


def finish(process: subprocess.Popen) -> str:
    """Waits for a process, which must succeed; what it printed."""
    output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    return output


def error_of(*command) -> str:
    """The one line with which a command refuses a user's mistake."""
    process = start(*command)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    lines = [x for x in errors.splitlines() if x.startswith("error: ")]
    assert len(lines) == 1, errors
    return lines[0]
