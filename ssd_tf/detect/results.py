"""`Detections` of one image: the type that all doors share; NumPy only."""

import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from PIL import Image

# Annotations and detections in files are decimals; as float32 shares of the
# image they have lost the last digits. To the thousandth of a pixel they are
# again what was written, and an overlap of exactly one half is one half.
_DECIMALS = 3


class Detection(NamedTuple):
    """One detection."""

    box: np.ndarray  # float64 [4], ymin, xmin, ymax, xmax in [0, 1]
    score: float
    class_number: int  # 1-based
    class_name: str


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """Detections of one image, best first.

    Indexing with a number or iterating gives `Detection`; indexing with a
    slice, a mask or an array of indices gives `Detections`.
    """

    # float64 [K, 4], ymin, xmin, ymax, xmax as shares of the image, in [0, 1];
    # within metrics pixels, see `evaluation.metrics.inputs.ImageResult`.
    boxes: np.ndarray
    scores: np.ndarray  # float64 [K], falling; ties in the order given
    classes: np.ndarray  # int64 [K], 1-based
    names: tuple[str, ...] = ()  # element k - 1 names class k
    image_size: tuple[int, int] | None = None  # height, width, pixels
    pixels: np.ndarray | None = None  # RGB uint8 [h, w, 3], for `plot`

    @property
    def class_names(self) -> list[str]:
        """The name of each detection; its class number where unnamed."""
        return [class_name(self.names, label) for label in self.classes]

    @property
    def pixel_boxes(self) -> np.ndarray:
        """float64 [K, 4]: the boxes in pixels, rounded to a thousandth.

        Raises:
          ValueError: the image's size is unknown.
        """
        if self.image_size is None:
            raise ValueError("the size of the image is unknown")
        return to_pixels(self.boxes, *self.image_size)

    def above(self, min_score: float) -> "Detections":
        """Returns the detections of at least this score."""
        return self[self.scores >= min_score]

    def plot(self, min_score: float = 0.5) -> "Image.Image":
        """Draws the detections of at least this score on their image.

        Raises:
          ValueError: the pixels of the image are not known.
        """
        from ssd_tf.detect import drawing

        if self.pixels is None:
            raise ValueError("the pixels of the image are unknown")
        columns = self.boxes, self.scores, self.classes
        return drawing.draw_detections(
            self.pixels, *columns, self.names, min_score
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Any) -> "Detection | Detections":
        if isinstance(index, int | np.integer):
            label = int(self.classes[index])
            return Detection(
                self.boxes[index],
                float(self.scores[index]),
                label,
                class_name(self.names, label),
            )
        columns = (self.boxes, self.scores, self.classes)
        boxes, scores, classes = (column[index] for column in columns)
        return dataclasses.replace(
            self, boxes=boxes, scores=scores, classes=classes
        )

    def __iter__(self) -> Iterator[Detection]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        shown = (f"{x.class_name} {x.score:.2f}" for x in self[:5])
        more = [f"{len(self) - 5} more"] * (len(self) > 5)
        return f"Detections({', '.join([*shown, *more])})"

    def _repr_png_(self) -> bytes | None:
        """Returns the picture that a notebook shows."""
        if self.pixels is None:
            return None
        file = io.BytesIO()
        self.plot().save(file, "PNG")
        return file.getvalue()


def detections_of(
    batch: Mapping[str, np.ndarray],
    index: int,
    names: Sequence[str] = (),
    pixels: np.ndarray | None = None,
) -> Detections:
    """Returns one image's detections, best first, without padding.

    Args:
      batch: arrays by `runtimes.NAMES`.
      index: index of the image in the batch.
      names: element k - 1 names class k.
      pixels: RGB uint8 [h, w, 3] of the image.
    """
    count = int(batch["num_detections"][index])
    boxes, scores, classes = (
        np.asarray(batch[f"detection_{name}"][index][:count])
        for name in ("boxes", "scores", "classes")
    )
    # Files of other makers promise nothing.
    sound = np.isfinite(boxes).all(axis=1) & np.isfinite(scores) & (classes > 0)
    order = np.argsort(-scores, kind="stable")
    order = order[sound[order]]
    return Detections(
        boxes[order].astype(np.float64),
        scores[order].astype(np.float64),
        classes[order].astype(np.int64),
        tuple(names),
        None if pixels is None else pixels.shape[:2],
        pixels,
    )


def batch_of(found: Sequence[Detections]) -> dict[str, np.ndarray]:
    """Inverts `detections_of`: arrays by `runtimes.NAMES`, zero padded."""
    counts = np.array([len(each) for each in found], int)
    shape = len(found), counts.max(initial=0)
    boxes, scores = np.zeros((*shape, 4)), np.zeros(shape)
    classes = np.zeros(shape, int)
    for index, (each, count) in enumerate(zip(found, counts, strict=True)):
        boxes[index, :count] = each.boxes
        scores[index, :count] = each.scores
        classes[index, :count] = each.classes
    return {
        "detection_boxes": boxes,
        "detection_scores": scores,
        "detection_classes": classes,
        "num_detections": counts,
    }


def class_name(class_names: Sequence[str], label: int) -> str:
    """Returns the name of class `label`, or its number where unnamed."""
    return class_names[label - 1] if label <= len(class_names) else str(label)


def to_pixels(boxes: ArrayLike, height: int, width: int) -> np.ndarray:
    """Converts boxes [n, 4] in [0, 1] to pixels, rounded to a thousandth.

    Raises:
      ValueError: the image has no pixels.
    """
    if not (height > 0 and width > 0):
        raise ValueError(
            "Expected the image's height and width in pixels. "
            f"Received: {height} x {width}"
        )
    return np.round(boxes * np.array([height, width] * 2), _DECIMALS)


def pixel_slices(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Converts boxes in [0, 1] to slices of the image, of a pixel at least.

    Args:
      boxes: float [n, 4].
      height, width: size of the image, pixels.

    Returns:
      int64 [n, 4], ymin, xmin, ymax, xmax; ends are exclusive.
    """
    size = np.array([height, width])
    edges = np.rint(np.clip(boxes, 0, 1) * np.tile(size, 2)).astype(np.int64)
    low = np.minimum(edges[:, :2], size - 1)
    high = np.maximum(edges[:, 2:], low + 1)
    return np.hstack([low, high])
