"""One annotated image, and the checks that boxes of every format go through.

Boxes are [ymin, xmin, ymax, xmax] in [0, 1]. Classes are names here: which
number a name gets is decided when records are written. Nothing in this module
knows of annotation formats or of TensorFlow.
"""

import dataclasses
import pathlib
from collections.abc import Collection

import numpy as np

# A box may leave the image by this many pixels (an off-by-one, a rounding)
# before clipping it counts as an error in the annotation.
MAX_OVERSHOOT_PX = 3.0
# Below this an overshoot is float32 rounding and not worth a word.
ROUNDING_PX = 1e-2
# Kinds of problems that need no attention: no object was lost.
NOTES = frozenset(
    {
        "exif_orientation",
        "overshoot",
        "re_encoded",
        "renamed",
        "split_not_here",
        "zero_based",
    }
)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something in the input that was skipped, dropped or mended.

    Attributes:
      file: the file at fault, as the reader reached it.
      kind: what is wrong, one word of a fixed vocabulary (`zero_area_box`).
      action: what became of it: "skipped" (the image is not in the output),
        "dropped" (the box is not), "clipped" (the box is cut to the image),
        "mended" (everything is in the output).
      detail: the value at fault.
      box: index of the box in its annotation, from 0; None for the image.
    """

    file: str
    kind: str
    action: str
    detail: str
    box: int | None = None

    @property
    def is_error(self) -> bool:
        """True if `--on_error=fail` stops here; notes never do."""
        return self.kind not in NOTES

    def __str__(self) -> str:
        box = "" if self.box is None else f" box {self.box}:"
        return f"{self.file}:{box} {self.kind}: {self.detail} ({self.action})"


@dataclasses.dataclass(frozen=True, eq=False)
class Annotation:
    """An image and its boxes, as a reader found them: not yet validated.

    Attributes:
      source_id: the image's id, unique in its split.
      origin: the annotation file, for messages.
      height, width: pixels that the boxes were divided by, as the annotation
        states them; None where boxes are relative by nature (YOLO).
      boxes: float32 [n, 4], ymin, xmin, ymax, xmax in [0, 1].
      names: n class names.
      difficult, truncated, crowd: bool [n]; all False by default. A crowd
        box covers a group of objects.
      areas: float32 [n], square pixels of what is in a box, such as a mask;
        0, the default, where only the box is known.
      poses: n views of the objects ("Frontal"); "Unspecified" by default.
      image_path: where the image lies; or (and then it is not read)
      image_bytes: the encoded image itself.

    Raises:
      ValueError: arrays disagree in length, or there is no image.
    """

    source_id: str
    origin: str
    height: int | None
    width: int | None
    boxes: np.ndarray
    names: tuple[str, ...]
    difficult: np.ndarray | None = None
    truncated: np.ndarray | None = None
    crowd: np.ndarray | None = None
    areas: np.ndarray | None = None
    poses: tuple[str, ...] | None = None
    image_path: pathlib.Path | None = None
    image_bytes: bytes | None = None

    def __post_init__(self):
        boxes = np.asarray(self.boxes, np.float32).reshape(-1, 4)
        poses = self.poses or ["Unspecified"] * len(boxes)
        arrays = {
            "boxes": boxes,
            "names": tuple(self.names),
            "poses": tuple(poses),
        }
        for field in ("difficult", "truncated", "crowd"):
            flags = getattr(self, field)
            arrays[field] = (
                np.zeros(len(boxes), bool)
                if flags is None
                else np.asarray(flags, bool)
            )
        areas = np.zeros(len(boxes)) if self.areas is None else self.areas
        arrays["areas"] = np.asarray(areas, np.float32)
        for field, value in arrays.items():
            if len(value) != len(boxes):
                raise ValueError(
                    f"{self.origin}: {len(boxes)} boxes but "
                    f"{len(value)} {field}"
                )
            object.__setattr__(self, field, value)
        if self.image_path is None and self.image_bytes is None:
            raise ValueError(
                f"{self.origin}: expected image_path or image_bytes; "
                "received neither"
            )

    def read_image(self) -> bytes:
        """Returns the encoded image.

        Raises:
          OSError: the file cannot be read.
        """
        if self.image_bytes is not None:
            return self.image_bytes
        return self.image_path.read_bytes()

    @property
    def filename(self) -> str:
        """Name of the image file without its folder."""
        return self.image_path.name if self.image_path else self.source_id


def clean(
    annotation: Annotation,
    class_names: Collection[str],
    height: int,
    width: int,
) -> tuple[Annotation, list[Problem]]:
    """Keeps the boxes one can train on, cut to the image.

    Args:
      annotation: as read; boxes of a stated size other than the image's are
        taken back to pixels by it.
      class_names: the known classes.
      height, width: the true size of the upright image, pixels.

    Returns:
      The annotation with the image's true size and only sound boxes, and one
      problem per box that was dropped or clipped.
    """
    stated = (annotation.height or height, annotation.width or width)
    boxes_px = annotation.boxes.astype(np.float64) * (stated * 2)
    scale_px = np.array([height, width] * 2, np.float64)
    kept, boxes, problems = [], [], []
    for index, name in enumerate(annotation.names):
        box_px, kind = _judge(boxes_px[index], scale_px)
        if name not in class_names:
            box_px, kind = None, "unknown_class"
        if box_px is not None:
            kept.append(index)
            boxes.append(box_px / scale_px)
        if kind:
            detail = (
                repr(name)
                if kind == "unknown_class"
                else _describe(boxes_px[index], height, width)
            )
            action = "dropped" if box_px is None else "clipped"
            problems.append(
                Problem(annotation.origin, kind, action, detail, index)
            )
    return _select(annotation, kept, boxes, height, width), problems


def _judge(box_px, scale_px):
    """Returns the box cut to the image, or None, and its problem, if any."""
    if not np.isfinite(box_px).all():
        return None, "not_finite_box"
    extent = box_px[2:] - box_px[:2]
    if (extent < 0).any():
        return None, "inverted_box"
    if (extent == 0).any():
        return None, "zero_area_box"
    clipped = np.clip(box_px, 0, scale_px)
    overshoot = np.abs(clipped - box_px).max()
    if overshoot <= ROUNDING_PX:
        return clipped, None
    if (clipped[2:] - clipped[:2] < 1).any():  # less than a pixel is left
        return None, "outside_box"
    return clipped, (
        "outside_box" if overshoot > MAX_OVERSHOOT_PX else "overshoot"
    )


def _describe(box_px, height, width):
    numbers = ", ".join(f"{value:g}" for value in np.round(box_px, 3))
    return (
        f"ymin, xmin, ymax, xmax = {numbers} px in an image of "
        f"{width} x {height}"
    )


def _select(annotation, kept, boxes, height, width):
    return dataclasses.replace(
        annotation,
        height=height,
        width=width,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        names=tuple(annotation.names[index] for index in kept),
        difficult=annotation.difficult[kept],
        truncated=annotation.truncated[kept],
        crowd=annotation.crowd[kept],
        areas=annotation.areas[kept],
        poses=tuple(annotation.poses[index] for index in kept),
    )
