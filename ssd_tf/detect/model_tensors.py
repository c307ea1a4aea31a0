"""Pixels as the inputs of model files want them, and what their outputs mean.

Knows nothing of the programs that run these files.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssd_tf.command import UserError

NAMES = (
    "detection_boxes",
    "detection_scores",
    "detection_classes",
    "num_detections",
)


class Quantization(NamedTuple):
    """What an integer q stands for: (q - zero) * scale."""

    scale: float = 0.0  # 0: for itself
    zero: int = 0


NO_QUANTIZATION = Quantization()


def from_pixels(
    pixels: np.ndarray,
    dtype: np.dtype | type,
    quantization: Quantization = NO_QUANTIZATION,
) -> np.ndarray:
    """Pixels in the type of an input.

    Args:
      pixels: float32 in 0..255.
      dtype: of the input; whole numbers are rounded and cut to what it holds.
      quantization: of the input. Where its numbers stand for about 0..255,
        pixels are put into them. Where they stand for something else, such as
        -1..1 or 0..1, the graph means pixels that have been normalised, and
        the input is the pixel itself, for int8 less 128.
    """
    if not np.issubdtype(dtype, np.integer):
        return pixels.astype(dtype)
    bounds = np.iinfo(dtype)
    if _means_pixels(quantization, bounds):
        numbers = pixels / quantization.scale + quantization.zero
    else:
        numbers = pixels - (128 if dtype == np.int8 else 0)
    return np.clip(np.rint(numbers), bounds.min, bounds.max).astype(dtype)


def _means_pixels(quantization, bounds):
    """Whether integers stand for 0..255, or what calibration saw of it."""
    scale, zero = quantization
    least, most = (bounds.min - zero) * scale, (bounds.max - zero) * scale
    # 16 bits are symmetric about 0, whatever is seen. Half of 255 is dark.
    return (zero == 0 or least > -25.5) and 127.5 < most < 300


def dequantized(values: np.ndarray, quantization: Quantization) -> np.ndarray:
    """What the numbers of an output stand for."""
    scale, zero = quantization
    return (values.astype(np.float32) - zero) * scale if scale else values


def normalised(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Classes from 1, int32, 0 pads; boxes cut to the image.

    Whole numbers count from 1 as everywhere in this package, floats from 0 as
    the TFLite op gives them, which does not cut boxes either.
    """
    classes = np.asarray(found["detection_classes"])
    count = np.asarray(found["num_detections"]).astype(np.int32).reshape(-1)
    first = 1 if np.issubdtype(classes.dtype, np.floating) else 0
    classes = classes.astype(np.int32) + first
    real = np.arange(classes.shape[1]) < count[:, None]
    return {
        **found,
        "detection_boxes": np.clip(found["detection_boxes"], 0.0, 1.0),
        "detection_classes": np.where(real, classes, 0),
        "num_detections": count,
    }


def stack(results: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One batch of those of single images."""
    return {
        name: np.concatenate([result[name] for result in results])
        for name in NAMES
    }


def input_size(
    shape: Sequence[int | str | None], path: str | os.PathLike
) -> tuple[int, int]:
    """Height and width, pixels, of an input's shape.

    Args:
      shape: as the file states it: no positive number where it is free.
      path: of the file, for the message.

    Raises:
      UserError: not `[batch, height, width, 3]` with a fixed size.
    """
    fixed = [
        int(side) if isinstance(side, int | np.integer) and side > 0 else -1
        for side in shape
    ]
    fits = len(fixed) == 4 and fixed[0] in (-1, 1) and fixed[3] == 3
    if not fits or -1 in fixed[1:3]:
        raise UserError(
            f"{path}: its input is {fixed} (-1 where it is free); expected "
            "[batch, height, width, 3] with a fixed height and width and one "
            "image or any number of them; convert the model so"
        )
    return fixed[1], fixed[2]
