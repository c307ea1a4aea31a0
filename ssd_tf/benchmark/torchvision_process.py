"""The train step of torchvision's `ssd300_vgg16`, measured when asked.

A process of its own, which `ssd_tf.benchmark.torchvision` starts and asks:
where TensorFlow is imported, torch's steps take a quarter to a half longer.
"""

import importlib.util
import json
import pathlib
import sys
import warnings
from typing import Any

import torch

from ssd_tf.benchmark.stages import Measure, warmed
from ssd_tf.config.training import TrainParams

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    """Reads the batch, a line of JSON; answers each line after it in seconds.

    They are seconds per image. It ends when nobody is there to ask.
    """
    measure = make_measure(**json.loads(sys.stdin.readline()))
    for _ in sys.stdin:
        sys.stdout.write(f"{measure()}\n")
        sys.stdout.flush()


def make_measure(
    img_shape: tuple[int, int],
    num_classes: int,
    boxes: list[list[list[float]]],
    labels: list[list[int]],
) -> Measure:
    """A whole step: transform, forward, matching, loss, backward, SGD.

    Args:
      img_shape: height and width of the images.
      num_classes: with the background.
      boxes: per image its boxes `[xmin, ymin, xmax, ymax]` in pixels.
      labels: their classes, 1 to num_classes - 1.
    """
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


def _declare_missing_operators() -> Any:
    """Declares what torchvision's import names, where its library won't load.

    It does not where torch was built for another device. A train step needs
    no operator of it.

    Returns:
      What must be kept, or None.
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
    """The untrained network, on the GPU if there is one."""
    with warnings.catch_warnings():
        # That it reads no images without its library.
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
    """Images 0..1 and their targets."""
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
