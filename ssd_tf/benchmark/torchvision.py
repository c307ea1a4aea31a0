"""The train step of torchvision, to measure ours against.

It runs in a process of its own, because torch's steps take a quarter to a
half longer where TensorFlow is imported.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from ssd_tf.benchmark import inputs
from ssd_tf.benchmark.stages import Measure, warmed
from ssd_tf.command import UserError
from ssd_tf.config.training import TrainParams
from ssd_tf.nets.ssd import SSDNet

NUM_BOXES = 10
# It is no part of the installed package, which does not need torch.
_SCRIPT = (
    pathlib.Path(__file__).parents[2] / "tests/support/torchvision_process.py"
)
# glibc keeps what torch frees at every step. On virtual machines that give
# free memory back, asking for it again was found to take half of a step.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
}


def train(net: SSDNet, batch_size: int) -> Measure:
    """Starts a process that takes torchvision's whole step when asked.

    Args:
      net: net whose input size, classes and boxes are trained on.
      batch_size: number of images in a batch.

    Returns:
      A function that takes one warm measurement, in seconds per image.

    Raises:
      UserError: torch or torchvision is not installed, this is no source
        checkout, or the process ends.
    """
    for name in ("torch", "torchvision"):
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"--against=torchvision: {name} is not installed; "
                "pip install torch torchvision"
            )
    if not _SCRIPT.is_file():
        raise UserError(
            f"--against=torchvision: {_SCRIPT} not found; run it from a "
            "source checkout of ssd_tf"
        )
    process = subprocess.Popen(
        [sys.executable, str(_SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | _KEEP_MEMORY,
    )

    def ask(line: str = "") -> None:
        """Sends a line, and waits until the process has answered it."""
        try:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            answered = bool(process.stdout.readline())
        except OSError:
            answered = False
        if not answered:
            process.kill()
            process.communicate()
            raise UserError(
                "--against=torchvision: the process of its steps has ended"
            )

    ask(json.dumps(_batch(net, batch_size)))
    return warmed(ask, batch_size)


def _batch(net: SSDNet, batch_size: int) -> dict[str, Any]:
    """Returns what `ssd_tf` is measured with; boxes as x, y, x, y in pixels."""
    height, width = net.params.img_shape
    truth = inputs.truth(net, batch_size, NUM_BOXES)
    boxes = truth["boxes"].numpy()[:, :NUM_BOXES, [1, 0, 3, 2]]
    return {
        "img_shape": net.params.img_shape,
        "num_classes": net.params.num_classes,
        "boxes": (boxes * [width, height, width, height]).tolist(),
        "labels": truth["labels"].numpy()[:, :NUM_BOXES].tolist(),
        "momentum": TrainParams.momentum,
        "weight_decay": TrainParams.weight_decay,
    }
