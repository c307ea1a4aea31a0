"""What a run keeps in memory does not grow with its steps."""

import json
import pathlib
import resource
import statistics
import time

import pytest
from processes import finish, start_training

STEPS = 2000
WINDOW = 200  # steps
# Until then the heap settles: every thread of TensorFlow keeps what its
# convolutions need, and few steps of a thread need all shapes.
SETTLED = 1000


def resident_bytes(process):
    """What the system has given the process; 0 when it has ended."""
    try:
        statm = pathlib.Path(f"/proc/{process.pid}/statm").read_text()
    except FileNotFoundError:
        return 0
    return int(statm.split()[1]) * resource.getpagesize()


def last_step(train_dir):
    log = train_dir / "metrics.jsonl"
    lines = log.read_text("utf-8").splitlines() if log.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


@pytest.mark.slow
@pytest.mark.skipif(
    not pathlib.Path("/proc/self/statm").exists(), reason="needs /proc"
)
def test_memory_does_not_grow_with_steps(shapes_data, tmp_path):
    process = start_training("one", "long", shapes_data, tmp_path, STEPS)
    seen = {}
    while process.poll() is None:
        step = last_step(tmp_path)
        if size := resident_bytes(process):
            seen.setdefault(step // WINDOW * WINDOW, []).append(size)
        time.sleep(0.2)
    finish(process)
    # The median: saves and evaluations hold more for a moment.
    sizes = {step: statistics.median(values) for step, values in seen.items()}
    for step in range(SETTLED, STEPS, WINDOW):
        assert sizes[step] <= 1.02 * sizes[SETTLED], sizes
