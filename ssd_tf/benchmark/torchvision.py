"""The train step of torchvision, to measure ours against, as one measurement.

It is made in a process of its own, `ssd_tf.benchmark.torchvision_process`.
"""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

from ssd_tf.benchmark import inputs
from ssd_tf.benchmark.stages import Measure
from ssd_tf.command import UserError
from ssd_tf.nets.ssd import SSDNet

NUM_BOXES = 10
_PROCESS = [sys.executable, "-m", "ssd_tf.benchmark.torchvision_process"]
# glibc keeps what torch frees at every step. On virtual machines that give
# free memory back, asking for it again was found to take half of a step.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
}


def train(net: SSDNet, batch_size: int) -> Measure:
    """Seconds an image of torchvision's whole step.

    Args:
      net: whose input size, classes and boxes it shall have.
      batch_size: images in a batch.

    Raises:
      UserError: torch or torchvision is not installed, or its process ends.
    """
    _check_installed()
    process = subprocess.Popen(
        _PROCESS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | _KEEP_MEMORY,
    )
    _ask(process, f"{json.dumps(_batch(net, batch_size))}\n")
    return functools.partial(_ask, process)


def _ask(process: subprocess.Popen, batch: str = "") -> float:
    """A measurement; the first time of the batch that is told."""
    try:
        process.stdin.write(f"{batch}\n")
        process.stdin.flush()
        return float(process.stdout.readline())
    except (OSError, ValueError) as error:
        process.kill()
        process.communicate()
        raise UserError(
            "--against=torchvision: the process of its steps has ended"
        ) from error


def _check_installed() -> None:
    for name in ("torch", "torchvision"):
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"--against=torchvision: {name} is not installed; "
                "pip install torch torchvision"
            )


def _batch(net: SSDNet, batch_size: int) -> dict[str, Any]:
    """What `ssd_tf` is measured with; boxes as x, y, x, y in pixels."""
    height, width = net.params.img_shape
    truth = inputs.truth(net, batch_size, NUM_BOXES)
    boxes = truth["boxes"].numpy()[:, :NUM_BOXES, [1, 0, 3, 2]]
    return {
        "img_shape": net.params.img_shape,
        "num_classes": net.params.num_classes,
        "boxes": (boxes * [width, height, width, height]).tolist(),
        "labels": truth["labels"].numpy()[:, :NUM_BOXES].tolist(),
    }
