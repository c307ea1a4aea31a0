"""Files of detections: JSON, CSV, COCO, VOC.

Each is written by a function of (folder, results, class names, least score)
that goes through the results once and keeps no pixels.
"""

import csv
import dataclasses
import io
import json
import pathlib
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

from PIL import Image

from ssd_tf import command
from ssd_tf.command import files
from ssd_tf.datasets.annotation import Annotation
from ssd_tf.datasets.formats import voc
from ssd_tf.detect import coco_json
from ssd_tf.detect.inputs import VOC_DIR
from ssd_tf.detect.reading import Result
from ssd_tf.detect.results import Detections, class_name, pixel_slices

JSON_FILE = "detections_by_image.json"
CSV_FILE = "detections.csv"
COCO_IMAGES_FILE = "coco_images.json"
VOC_SPLIT = "detected"
CSV_COLUMNS = [
    "file",
    "width",
    "height",
    "class",
    "name",
    "score",
    "xmin",
    "ymin",
    "xmax",
    "ymax",
    "frame",
]
# VOC's corners are pixels of the box, and a box of one pixel looks like none.
_MIN_VOC_SIDE = 2
_FRAME_QUALITY = 95
# NumPy, with which COCO's tools sort them, holds no larger ones.
_MAX_COCO_ID = 2**63 - 1


def write_json(
    output_dir: pathlib.Path,
    results: Iterable[Result],
    class_names: Sequence[str],
    min_score: float,
) -> None:
    """Writes `detections_by_image.json`, one image per line, all scores."""
    del min_score
    names = json.dumps(list(class_names), ensure_ascii=False)
    before = f'{{"class_names": {names},\n"images": ['
    with files.json_list(output_dir / JSON_FILE, before, "]}\n") as write:
        for result in results:
            write(_entry(result))


def _entry(result: Result) -> dict[str, Any]:
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
                "class": each.class_number,
                "name": each.class_name,
                "score": round(each.score, 6),
                "box": [round(x, 6) for x in each.box.tolist()],
            }
            for each in result.found
        ],
    }


def write_csv(
    output_dir: pathlib.Path,
    results: Iterable[Result],
    class_names: Sequence[str],
    min_score: float,
) -> None:
    """Writes `detections.csv`, one row per detection, corners in pixels."""
    del class_names
    with (
        files.replace_file(output_dir / CSV_FILE) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for result in results:
            writer.writerows(_csv_rows(result, min_score))


def _csv_rows(result, min_score):
    height, width = result.size
    moment = result.picture.moment
    for each in result.found.above(min_score):
        corners = each.box[[1, 0, 3, 2]] * [width, height, width, height]
        yield [
            result.picture.file,
            width,
            height,
            each.class_number,
            each.class_name,
            round(each.score, 6),
            *(round(corner, 2) for corner in corners.tolist()),
            moment.index if moment else "",
        ]


def write_coco(
    output_dir: pathlib.Path,
    results: Iterable[Result],
    class_names: Sequence[str],
    min_score: float,
) -> None:
    """Writes COCO's results with all scores, and the images they are of.

    `COCO(coco_images.json).loadRes(detections.json)` puts them together;
    where all pictures are called by their numbers, as COCO's own are,
    `loadRes` of its annotations takes the results, too.
    """
    del min_score
    images, number_of_classes = [], len(class_names)
    output_dir.mkdir(parents=True, exist_ok=True)
    # Detections of a long video do not fit into memory, and what the first
    # image is called depends on the last one.
    with tempfile.TemporaryFile(dir=output_dir) as kept:
        for result in results:
            images.append(_coco_image(result))
            number_of_classes = max([number_of_classes, *result.found.classes])
            pickle.dump(dataclasses.replace(result.found, pixels=None), kept)
        ids = coco_ids([image["id"] for image in images])
        coco_json.write(
            output_dir / coco_json.DETECTIONS_FILE,
            _with_ids(kept, ids),
            range(1, 1 << 31),
        )
    images = [
        image | {"id": number}
        for image, number in zip(images, ids, strict=True)
    ]
    categories = [
        {"id": label, "name": class_name(class_names, label)}
        for label in range(1, int(number_of_classes) + 1)
    ]
    files.write_json(
        output_dir / COCO_IMAGES_FILE,
        {"images": images, "categories": categories, "annotations": []},
    )


def coco_ids(source_ids: Sequence[str]) -> list[int]:
    """Returns numbers for images: COCO's tools take nothing else.

    Args:
      source_ids: of all images.

    Returns:
      Their own numbers, "000000397133" is 397133, where each has one and no
      other has it; else 1, 2, 3 ...
    """
    if all(source_id.isdecimal() for source_id in source_ids):
        ids = [int(source_id) for source_id in source_ids]
        if len({*ids}) == len(ids) and max(ids, default=0) <= _MAX_COCO_ID:
            return ids
    return list(range(1, len(source_ids) + 1))


def _with_ids(
    kept: IO[bytes], ids: Sequence[int]
) -> Iterator[tuple[str, Detections]]:
    """Yields the kept detections with their ids, in order."""
    kept.seek(0)
    for number in ids:
        yield str(number), pickle.load(kept)


def _coco_image(result):
    height, width = result.size
    moment = result.picture.moment
    return {
        "id": result.picture.source_id,
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
    del class_names
    annotations = (_annotation(result, min_score) for result in results)
    voc.write(output_dir / VOC_DIR, VOC_SPLIT, annotations)


def _annotation(result, min_score):
    """In whole pixels, as annotation tools want them."""
    height, width = result.size
    found = result.found.above(min_score)
    boxes = pixel_slices(found.boxes, height, width)
    kept = (boxes[:, 2:] - boxes[:, :2] >= _MIN_VOC_SIDE).all(axis=1)
    return Annotation(
        source_id=result.picture.source_id,
        origin=result.picture.file,
        height=height,
        width=width,
        boxes=boxes[kept] / ([height, width] * 2),
        names=found[kept].class_names,
        image_bytes=result.picture.encoded or _as_jpeg(result.picture.pixels),
    )


def _as_jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_FRAME_QUALITY)
    return file.getvalue()


def write_text(
    output_dir: pathlib.Path,
    results: Iterable[Result],
    class_names: Sequence[str],
    min_score: float,
) -> None:
    """Prints one line per image: its file and its detections, best first."""
    del output_dir, class_names
    for result in results:
        texts = (
            f"{each.class_name} {each.score:.2f} {each.box.round(6).tolist()}"
            for each in result.found.above(min_score)
        )
        line = ", ".join(texts) or "nothing"
        command.say(f"{result.picture.file}: {line}")


# Name -> its function.
FORMATS: dict[str, Callable[..., None]] = {
    "json": write_json,
    "csv": write_csv,
    "coco": write_coco,
    "voc": write_voc,
    "text": write_text,
}
