"""The twelve numbers of the COCO detection challenge, by pycocotools.

Two things differ from COCO's own leader board, because annotations in this
package are boxes: sizes (small, medium, large) are those of the box, not of
the mask in it; and there are no categories beyond the class names given.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from ssd_tf.metrics import inputs

# In the order of `COCOeval.stats`.
METRICS = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR1",
    "AR10",
    "AR100",
    "AR_small",
    "AR_medium",
    "AR_large",
)
# `COCOeval.params.areaRng`, in words.
SIZES = {
    "small": "smaller than 32 x 32 pixels",
    "medium": "between 32 x 32 and 96 x 96 pixels",
    "large": "larger than 96 x 96 pixels",
}


class COCOMetric:
    """COCO average precision and recall over many images.

    Average precision is the mean over IoU .50, .55, .. .95 and over classes
    with ground truth, at 101 recall points, with at most 100 detections a
    class and image. Crowd boxes absorb any number of detections. Equal scores
    in two images keep the order in which the images came.
    """

    def __init__(self, class_names: Sequence[str]):
        """Starts with no images.

        Args:
          class_names: names of the classes 1, 2, ...

        Raises:
          ValueError: unusable class names.
        """
        self.class_names = list(class_names)
        inputs.check_class_names(self.class_names)
        self._images = []  # (Detections, GroundTruth), boxes in pixels

    @property
    def protocol(self) -> str:
        """The rules in one line, for reports."""
        return (
            "COCO (pycocotools): IoU .50:.05:.95, 100 detections; sizes by box "
            "area in pixels; crowd boxes ignored, difficult ones count"
        )

    def update(
        self,
        boxes: ArrayLike,
        scores: ArrayLike,
        classes: ArrayLike,
        gt_boxes: ArrayLike,
        gt_labels: ArrayLike,
        difficult: ArrayLike | None = None,
        crowd: ArrayLike | None = None,
        *,
        height: int,
        width: int,
    ) -> None:
        """Adds one image; rows of class 0 are padding and skipped.

        Args:
          boxes: float [K, 4], detections as ymin, xmin, ymax, xmax in [0, 1].
          scores: float [K].
          classes: integers [K], 1-based.
          gt_boxes: float [M, 4], like `boxes`.
          gt_labels: integers [M], 1-based.
          difficult: bool [M]; taken so that all metrics are called alike, and
            without effect: COCO knows no difficult boxes.
          crowd: bool [M], none by default.
          height: of the original image, pixels.
          width: of the original image, pixels.

        Raises:
          ValueError: lengths that differ, an unknown class, NaN or infinity, an
            image without pixels.
        """
        if not (height > 0 and width > 0):
            raise ValueError(
                "Expected the image's height and width in pixels. "
                f"Received: {height} x {width}"
            )
        num_classes = len(self.class_names)
        found = inputs.detections(boxes, scores, classes, num_classes)
        truth = inputs.ground_truth(
            gt_boxes, gt_labels, difficult, crowd, num_classes
        )
        size = np.array([height, width, height, width], np.float64)
        self._images.append(
            (
                found._replace(boxes=found.boxes * size),
                truth._replace(boxes=truth.boxes * size),
            )
        )

    def result(self) -> dict[str, float | None | dict[str, str]]:
        """The twelve numbers, in [0, 1], of all images so far.

        Returns:
          `COCO/AP`, `COCO/AP50`, .. `COCO/AR_large`; None where nothing was to
          be found (pycocotools' -1), and `COCO/left_out` tells why, by key.
        """
        stats = dict(zip(METRICS, self._stats(), strict=True))
        left_out = [name for name, value in stats.items() if value < 0]
        result = {
            f"COCO/{name}": None if name in left_out else float(value)
            for name, value in stats.items()
        }
        reasons = {f"COCO/{name}": _why_left_out(name) for name in left_out}
        return {**result, "COCO/left_out": reasons}

    def _stats(self) -> np.ndarray:
        from pycocotools.cocoeval import COCOeval

        # pycocotools reports each of its steps on standard output.
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(
                self._index(self._ground_truth()),
                self._index(self._detections()),
                iouType="bbox",
            )
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation.stats

    def _index(self, annotations: Iterator[dict]):
        """A `pycocotools.coco.COCO` over these annotations and all images."""
        from pycocotools.coco import COCO

        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(self._images))],
            "categories": [
                {"id": label, "name": name}
                for label, name in enumerate(self.class_names, start=1)
            ],
            # From 1: pycocotools takes a match with annotation 0 for none.
            "annotations": [
                {"id": i, **fields}
                for i, fields in enumerate(annotations, start=1)
            ],
        }
        coco.createIndex()
        return coco

    def _ground_truth(self) -> Iterator[dict]:
        for image_id, (_, truth) in enumerate(self._images):
            annotations = _annotations(image_id, truth.boxes, truth.labels)
            for fields, crowd in zip(annotations, truth.crowd, strict=True):
                yield {**fields, "iscrowd": int(crowd)}

    def _detections(self) -> Iterator[dict]:
        for image_id, (found, _) in enumerate(self._images):
            annotations = _annotations(image_id, found.boxes, found.classes)
            for fields, score in zip(
                annotations, found.scores.tolist(), strict=True
            ):
                yield {**fields, "iscrowd": 0, "score": score}


def _annotations(
    image_id: int, boxes: np.ndarray, labels: np.ndarray
) -> Iterator[dict]:
    """COCO's fields of boxes in pixels: x, y, width, height and the area."""
    corner = boxes[:, 1::-1]
    size = np.maximum(boxes[:, :1:-1] - corner, 0)  # width, height
    for label, (x, y), (width, height) in zip(
        labels.tolist(), corner.tolist(), size.tolist(), strict=True
    ):
        yield {
            "image_id": image_id,
            "category_id": label,
            "bbox": [x, y, width, height],
            "area": width * height,
        }


def _why_left_out(name: str) -> str:
    size = SIZES.get(name.partition("_")[2])
    return "no ground truth " + size if size else "no ground truth"
