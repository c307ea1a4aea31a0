"""Files that tell of detections: JSON, CSV, COCO, VOC.

Each is written by a function of (folder, results, class names, least score)
that goes through the results once and keeps no pixels.
"""

import contextlib
import csv
import io
import json
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from PIL import Image

from ssd_tf import coco_results, files
from ssd_tf.datasets import voc
from ssd_tf.datasets.annotation import Annotation
from ssd_tf.detect_inputs import VOC_DIR
from ssd_tf.detect_results import Result, class_name, from_score, pixel_boxes
from ssd_tf.metrics import inputs

JSON_FILE = "detections.json"
CSV_FILE = "detections.csv"
COCO_FILE = "coco_results.json"
COCO_IMAGES_FILE = "coco_images.json"
VOC_SPLIT = "detected"
CSV_COLUMNS = (
    *("file", "width", "height", "class", "name", "score"),
    *("xmin", "ymin", "xmax", "ymax", "frame"),
)
# VOC's corners are pixels of the box, and a box of one pixel looks like none.
_MIN_VOC_SIDE = 2
_FRAME_QUALITY = 95
_NO_TRUTH = inputs.ground_truth([], [], None, None, 0)


def write_json(
    output_dir: pathlib.Path,
    results: Iterable[Result],
    class_names: Sequence[str],
    min_score: float,
) -> None:
    """Writes `detections.json`, one image a line; all scores are in it."""
    del min_score
    with _replacing(output_dir / JSON_FILE) as file:
        file.write(f'{{"class_names": {_as_json(list(class_names))},\n')
        file.write('"images": [')
        separator = "\n"
        for result in results:
            file.write(separator + _as_json(_entry(result, class_names)))
            separator = ",\n"
        file.write("\n]}\n")


@contextlib.contextmanager
def _replacing(path):
    with (
        files.replace_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        yield file


def _as_json(value):
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _entry(result: Result, class_names: Sequence[str]) -> dict[str, Any]:
    moment = result.picture.moment
    in_video = (
        {"frame": moment.index, "seconds": round(moment.seconds, 6)}
        if moment
        else {}
    )
    height, width = result.size
    return {
        "file": result.picture.file,
        "height": height,
        "width": width,
        **in_video,
        "detections": [
            {
                "class": label,
                "name": class_name(class_names, label),
                "score": round(score, 6),
                "box": [round(x, 6) for x in box],
            }
            for box, score, label in _rows(result.found)
        ],
    }


def _rows(found):
    return zip(*(column.tolist() for column in found), strict=True)


def write_csv(
    output_dir: pathlib.Path,
    results: Iterable[Result],
    class_names: Sequence[str],
    min_score: float,
) -> None:
    """Writes `detections.csv`, a row per detection, corners in pixels."""
    with _replacing(output_dir / CSV_FILE) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for result in results:
            writer.writerows(_csv_rows(result, class_names, min_score))


def _csv_rows(result, class_names, min_score):
    height, width = result.size
    moment = result.picture.moment
    frame = moment.index if moment else ""
    for box, score, label in _rows(from_score(result.found, min_score)):
        ymin, xmin, ymax, xmax = box
        corners = (xmin * width, ymin * height, xmax * width, ymax * height)
        yield (
            *(result.picture.file, width, height, label),
            *(class_name(class_names, label), round(score, 6)),
            *(round(corner, 2) for corner in corners),
            frame,
        )


def write_coco(
    output_dir: pathlib.Path,
    results: Iterable[Result],
    class_names: Sequence[str],
    min_score: float,
) -> None:
    """Writes COCO's results with all scores, and the images they are of.

    `COCO(coco_images.json).loadRes(coco_results.json)` puts them together.
    """
    del min_score
    images, number_of_classes = [], len(class_names)

    def in_pixels():
        nonlocal number_of_classes
        for result in results:
            images.append(_coco_image(result))
            number_of_classes = max([number_of_classes, *result.found.classes])
            yield inputs.image_result(
                result.picture.source_id,
                *result.size,
                result.found,
                _NO_TRUTH,
            )

    path = output_dir / COCO_FILE
    coco_results.write(path, in_pixels(), range(1, 1 << 31))
    categories = [
        {"id": label, "name": class_name(class_names, label)}
        for label in range(1, int(number_of_classes) + 1)
    ]
    files.write_json(
        output_dir / COCO_IMAGES_FILE,
        {"images": images, "categories": categories, "annotations": []},
    )


def _coco_image(result):
    height, width = result.size
    source_id, moment = result.picture.source_id, result.picture.moment
    # A number where the id is one, as `coco_results` writes it.
    is_number = source_id.isdecimal() and str(int(source_id)) == source_id
    return {
        "id": int(source_id) if is_number else source_id,
        "file_name": result.picture.file,
        "height": height,
        "width": width,
        **({"frame": moment.index} if moment else {}),
    }


def write_voc(
    output_dir: pathlib.Path,
    results: Iterable[Result],
    class_names: Sequence[str],
    min_score: float,
) -> None:
    """Writes a VOC tree that `ssd_tf.datasets.convert` reads."""
    annotations = (
        _annotation(result, class_names, min_score) for result in results
    )
    voc.write(output_dir / VOC_DIR, VOC_SPLIT, annotations)


def _annotation(result, class_names, min_score):
    """In whole pixels, as annotation tools want them."""
    height, width = result.size
    found = from_score(result.found, min_score)
    boxes = pixel_boxes(found.boxes, height, width)
    kept = (boxes[:, 2:] - boxes[:, :2] >= _MIN_VOC_SIDE).all(axis=1)
    return Annotation(
        source_id=result.picture.source_id,
        origin=result.picture.file,
        height=height,
        width=width,
        boxes=boxes[kept] / ([height, width] * 2),
        names=[class_name(class_names, x) for x in found.classes[kept]],
        image_bytes=result.picture.encoded or _as_jpeg(result.picture.pixels),
    )


def _as_jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_FRAME_QUALITY)
    return file.getvalue()


# Name -> its function.
FORMATS: dict[str, Callable[..., None]] = {
    "json": write_json,
    "csv": write_csv,
    "coco": write_coco,
    "voc": write_voc,
}
