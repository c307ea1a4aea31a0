"""Takes the train step of torchvision's `ssd300_vgg16` when asked.

A process of its own, which `ssd_tf.benchmark.torchvision` starts and asks:
where TensorFlow is imported, torch's steps take a quarter to a half longer.
"""

import importlib.util
import json
import pathlib
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    """Reads the batch, a line of JSON; answers each line after a step.

    It ends with its input.
    """
    step = make_step(**json.loads(sys.stdin.readline()))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        sys.stdout.write(f"{step()}\n")
        sys.stdout.flush()


def make_step(
    img_shape: tuple[int, int],
    num_classes: int,
    boxes: list[list[list[float]]],
    labels: list[list[int]],
    momentum: float,
    weight_decay: float,
) -> Callable[[], float]:
    """Makes a whole step: transform, forward, matching, loss, backward, SGD.

    Args:
      img_shape: height and width of the images.
      num_classes: number of classes, with the background.
      boxes: per image its boxes `[xmin, ymin, xmax, ymax]` in pixels.
      labels: classes of the boxes, 1 to num_classes - 1.
      momentum: momentum of SGD.
      weight_decay: weight decay of SGD.

    Returns:
      A function that takes a step and returns its loss.
    """
    declared = _declare_missing_operators()
    model = _model(num_classes)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=0.0,
        momentum=momentum,
        weight_decay=weight_decay,
    )
    images, targets = _batch(img_shape, boxes, labels)

    def step() -> float:
        optimizer.zero_grad()
        loss = sum(model(images, targets).values())
        loss.backward()
        optimizer.step()
        return loss.item()

    step.declared = declared  # they end with the object
    return step


def _declare_missing_operators() -> Any:
    """Declares operators that torchvision names, if its library fails to load.

    The library fails where torch was built for another device. A train step
    needs none of its operators.

    Returns:
      The declaration, which must be kept, or None.
    """
    origin = importlib.util.find_spec("torchvision").origin
    folder = pathlib.Path(origin).parent
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
    """Builds the untrained network, on the GPU if there is one."""
    with warnings.catch_warnings():
        # It warns that it cannot read images without its library.
        warnings.simplefilter("ignore")
        from torchvision.models import detection

    model = detection.ssd300_vgg16(
        weights=None, weights_backbone=None, num_classes=num_classes
    )
    return model.to(DEVICE).train()


def _batch(
    img_shape: tuple[int, int],
    boxes: list[list[list[float]]],
    labels: list[list[int]],
) -> tuple[list, list]:
    """Makes images 0..1 and their targets."""
    targets = [
        {
            "boxes": torch.tensor(box, device=DEVICE),
            "labels": torch.tensor(label, device=DEVICE),
        }
        for box, label in zip(boxes, labels, strict=True)
    ]
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((len(boxes), 3, *img_shape), generator=generator)
    return list(images.to(DEVICE)), targets


if __name__ == "__main__":
    main()
