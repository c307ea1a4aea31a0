"""The images of a report, drawn with what is right and wrong on them."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssd_tf.detect import drawing
from ssd_tf.evaluation.metrics.inputs import ImageResult
from ssd_tf.evaluation.metrics.worst_images import Judgement

RIGHT, WRONG, MISSED = (40, 170, 70), (225, 50, 50), (255, 160, 0)
# On a difficult box or in a crowd.
SKIPPED = (120, 120, 120)
# In place of an image that is not there.
_BLANK = (205, 205, 205)
# Longer sides are reduced to this many pixels.
MAX_SIDE = 640
_QUALITY = 82


class Drawn(NamedTuple):
    """An image of the report."""

    source_id: str
    data_uri: str
    width: int
    height: int
    caption: str  # numbers
    reason: str  # what is wrong


def draw(
    pixels: np.ndarray | None,
    image: ImageResult,
    judgement: Judgement,
    class_names: Sequence[str],
) -> Drawn:
    """Draws one image.

    Right detections are green, wrong ones red, those that count neither way
    grey, missed boxes orange.

    Args:
      pixels: uint8 [h, w, 3], the original; without them the boxes are drawn
        on an empty canvas of its shape, and the caption says so.
      image: its detections and truth.
      judgement: of `ranking.judge`.
      class_names: of the classes 1, 2, ...
    """
    picture = _canvas(pixels, image)
    size = [image.height, image.width] * 2
    found = image.found[judgement.kept]
    texts = [
        f"{class_names[each.class_number - 1]} {each.score:.2f}"
        for each in found
    ]
    missed = image.truth.boxes[judgement.missed] / size
    names = [
        class_names[label - 1] for label in image.truth.labels[judgement.missed]
    ]
    drawing.draw_tagged(picture, missed, names, MISSED)
    wrong, skipped = judgement.kind > 0, judgement.skipped
    for chosen, color in (
        (skipped, SKIPPED),
        (~wrong & ~skipped, RIGHT),
        (wrong, WRONG),
    ):
        chosen = np.flatnonzero(chosen)
        boxes = found.boxes[chosen] / size
        drawing.draw_tagged(picture, boxes, [texts[k] for k in chosen], color)
    return Drawn(
        image.source_id,
        _data_uri(picture),
        *picture.size,
        f"F1 {judgement.f1:.2f}: {judgement.num_right} right, "
        f"{wrong.sum()} wrong, {len(missed)} missed"
        + ", image not read"
        * (pixels is None),
        judgement.reason,
    )


def _canvas(pixels, image):
    if pixels is None:
        # However large a file says that its images are.
        scale = min(1.0, MAX_SIDE / max(image.height, image.width))
        sides = (image.width, image.height)
        return Image.new(
            "RGB", [max(1, round(scale * side)) for side in sides], _BLANK
        )
    picture = Image.fromarray(pixels)
    if max(picture.size) > MAX_SIDE:
        picture = drawing.fit(picture, MAX_SIDE)
    return picture


def _data_uri(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    encoded = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/jpeg;base64,{encoded}"


def draw_all(
    pixels: Mapping[str, np.ndarray],
    images: Sequence[ImageResult],
    judgements: Sequence[Judgement],
    class_names: Sequence[str],
) -> list[Drawn]:
    """Draws judged images, in the order of the judgements.

    Args:
      pixels: of the ids of those images that could be read.
      images: all of the data set.
      judgements: of those to be drawn.
      class_names: of the classes 1, 2, ...
    """
    drawn = []
    for judgement in judgements:
        image = images[judgement.index]
        found = pixels.get(image.source_id)
        # Another tool's records may give two images one id.
        if found is not None and found.shape[:2] != image[1:3]:
            found = None
        drawn.append(draw(found, image, judgement, class_names))
    return drawn
