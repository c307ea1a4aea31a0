"""The train step of torchvision's `ssd300_vgg16`, to measure ours against.

Knows nothing of TensorFlow but the batch that both are measured with.
"""

import contextlib
import functools
import importlib.util
import multiprocessing
import pathlib
import warnings
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ssd_tf import benchmark_inputs as inputs
from ssd_tf.benchmark_timing import Measure, warmed
from ssd_tf.command import UserError
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.recipe import TrainParams

NUM_BOXES = 10


def train(net: SSDNet, batch_size: int) -> Measure:
    """Its whole step: transform, forward, matching, loss, backward, SGD.

    In a process of its own: in that of TensorFlow's steps it takes a quarter
    to a half longer.

    Args:
      net: whose input size, classes and boxes it shall have.
      batch_size: images in a batch.

    Raises:
      UserError: torch or torchvision is not installed, or its process ends.
    """
    _check_installed()
    context = multiprocessing.get_context("spawn")
    connection, theirs = context.Pipe()
    params = net.params
    context.Process(
        target=_serve,
        args=(theirs, params.img_shape, params.num_classes),
        kwargs=_pixel_boxes(net, batch_size),
        daemon=True,
    ).start()
    theirs.close()
    measure = functools.partial(_ask, connection)
    measure()  # It is warm when this returns.
    return measure


def _ask(connection: Connection) -> float:
    """One measurement in the other process: seconds per image."""
    try:
        connection.send(None)
        return connection.recv()
    except (EOFError, OSError) as error:
        raise UserError(
            "--against=torchvision: the process of its steps has ended"
        ) from error


def _serve(
    connection: Connection,
    img_shape: tuple[int, int],
    num_classes: int,
    boxes: np.ndarray,
    labels: np.ndarray,
) -> None:
    """Measures whenever it is asked, until nobody is there to ask."""
    measure = _make_measure(img_shape, num_classes, boxes, labels)
    with contextlib.suppress(EOFError):
        while True:
            connection.recv()
            connection.send(measure())


def _make_measure(
    img_shape: tuple[int, int],
    num_classes: int,
    boxes: np.ndarray,
    labels: np.ndarray,
) -> Measure:
    import torch

    # They stay declared as long as this lives: as long as the measurement.
    declared = _declare_missing_operators()
    model = _model(num_classes)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=0.0,
        momentum=TrainParams.momentum,
        weight_decay=TrainParams.weight_decay,
    )
    images, targets = _batch(img_shape, boxes, labels)

    def step():
        optimizer.zero_grad()
        loss = sum(model(images, targets).values())
        loss.backward()
        optimizer.step()
        return declared, loss.item()

    return warmed(step, len(images))


def _check_installed() -> None:
    for name in ("torch", "torchvision"):
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"--against=torchvision: {name} is not installed; "
                "pip install torch torchvision"
            )


def _declare_missing_operators() -> Any:
    """Declares what torchvision's import names, where its library won't load.

    It does not where torch was built for another device. A train step needs
    no operator of it.

    Returns:
      What must be kept, or None.
    """
    import torch

    folder = pathlib.Path(importlib.util.find_spec("torchvision").origin).parent
    try:
        for library in folder.glob("_C.*"):
            torch.ops.load_library(library)
    except OSError:
        declared = torch.library.Library("torchvision", "DEF")
        signature = "(Tensor dets, Tensor scores, float iou_threshold)"
        for name in ("nms", "qnms"):
            declared.define(f"{name}{signature} -> Tensor")
        return declared
    return None


def _model(num_classes: int) -> Any:
    """The untrained network, on the GPU if there is one."""
    import torch

    with warnings.catch_warnings():
        # That it reads no images without its library.
        warnings.simplefilter("ignore")
        from torchvision.models import detection

    model = detection.ssd300_vgg16(
        weights=None, weights_backbone=None, num_classes=num_classes
    )
    return model.to("cuda" if torch.cuda.is_available() else "cpu").train()


def _pixel_boxes(net: SSDNet, batch_size: int) -> dict[str, np.ndarray]:
    """The boxes that `ssd_tf` is measured with, as x, y, x, y in pixels."""
    height, width = net.params.img_shape
    truth = inputs.truth(net, batch_size, NUM_BOXES)
    boxes = truth["boxes"].numpy()[:, :NUM_BOXES, [1, 0, 3, 2]]
    return {
        "boxes": boxes * [width, height, width, height],
        "labels": truth["labels"].numpy()[:, :NUM_BOXES],
    }


def _batch(
    img_shape: tuple[int, int], boxes: np.ndarray, labels: np.ndarray
) -> tuple[list, list]:
    """Images 0..1 and their targets."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    targets = [
        {"boxes": box.to(device), "labels": label.to(device)}
        for box, label in zip(
            torch.tensor(boxes).float(), torch.tensor(labels), strict=True
        )
    ]
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((len(boxes), 3, *img_shape), generator=generator)
    return list(images.to(device)), targets
