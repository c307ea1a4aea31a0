"""The train step of torchvision's `ssd300_vgg16`, to measure ours against.

Knows nothing of TensorFlow but the batch that both are measured with.
"""

import importlib.util
import pathlib
import warnings
from typing import Any

from ssd_tf import benchmark_inputs as inputs
from ssd_tf.benchmark_timing import Measure, warmed
from ssd_tf.command import UserError
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.recipe import TrainParams

NUM_BOXES = 10


def train(net: SSDNet, batch_size: int) -> Measure:
    """Its whole step: transform, forward, matching, loss, backward, SGD.

    Args:
      net: whose input size and classes it shall have.
      batch_size: images in a batch.

    Raises:
      UserError: torch or torchvision is not installed.
    """
    _check_installed()
    import torch

    # They stay declared as long as this lives: as long as the measurement.
    declared = _declare_missing_operators()
    model = _model(net.params.num_classes)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=0.0,
        momentum=TrainParams.momentum,
        weight_decay=TrainParams.weight_decay,
    )
    images, targets = _batch(net, batch_size)

    def step():
        optimizer.zero_grad()
        loss = sum(model(images, targets).values())
        loss.backward()
        optimizer.step()
        return declared, loss.item()

    return warmed(step, batch_size)


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


def _batch(net: SSDNet, batch_size: int) -> tuple[list, list]:
    """Images 0..1 and the boxes that `ssd_tf` is measured with, as pixels."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    height, width = net.params.img_shape
    truth = inputs.truth(net, batch_size, NUM_BOXES)
    boxes = truth["boxes"].numpy()[:, :NUM_BOXES, [1, 0, 3, 2]]
    boxes = torch.tensor(boxes * [width, height, width, height]).float()
    labels = torch.tensor(truth["labels"].numpy()[:, :NUM_BOXES])
    targets = [
        {"boxes": box.to(device), "labels": label.to(device)}
        for box, label in zip(boxes, labels, strict=True)
    ]
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((batch_size, 3, height, width), generator=generator)
    return list(images.to(device)), targets
