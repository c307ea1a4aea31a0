"""What the client has found: printed, or drawn and written."""

import contextlib
import io
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ssd_tf import command
from ssd_tf.client.images import Found, Item
from ssd_tf.command import UserError
from ssd_tf.detect import detections_json, drawing, image_files


class Output(NamedTuple):
    """What is written where."""

    output_dir: pathlib.Path | None  # None: everything is printed
    class_names: Sequence[str]  # none: classes are called by number
    labels: str | None  # file of the names
    min_score: float  # of what is drawn, printed and counted


@contextlib.contextmanager
def showing(output: Output) -> Iterator[Callable[[Item, Found], int]]:
    """Yields what shows an image's detections and counts the objects.

    detections.json is complete at the end, and not there where that is an
    exception.
    """
    with contextlib.ExitStack() as stack:
        if output.output_dir:
            path = output.output_dir / detections_json.JSON_FILE
            write = stack.enter_context(
                detections_json.writing(path, output.class_names)
            )

        def show(item: Item, found: Found) -> int:
            entry = describe(item, found, output)
            objects = _objects(entry, output)
            if output.output_dir:
                _save(item, entry, output)
                write(entry)
            else:
                command.say(_line(entry, objects))
            return len(objects)

        yield show


def describe(item: Item, found: Found, output: Output) -> dict[str, Any]:
    """One image's entry of detections.json, as `ssd_tf.detect` writes it.

    Raises:
      UserError: there are names, but not for every class found.
    """
    count, names = int(found["num_detections"]), output.class_names
    classes = found["detection_classes"][:count].tolist()
    if names and max(classes, default=0) > len(names):
        raise UserError(
            f"--labels={output.labels}: has {len(names)} names, but the model "
            f"has found class {max(classes)}; take the model's own file"
        )
    boxes = found["detection_boxes"][:count].astype(float).round(6).tolist()
    scores = found["detection_scores"][:count].astype(float).round(6).tolist()
    return {
        "file": item.source.file,
        "height": item.picture.height,
        "width": item.picture.width,
        "detections": [
            {
                "class": label,
                "name": names[label - 1] if names else str(label),
                "score": score,
                "box": box,
            }
            for label, score, box in zip(classes, scores, boxes, strict=True)
        ],
    }


def _objects(entry, output):
    return [x for x in entry["detections"] if x["score"] >= output.min_score]


def _line(entry, objects):
    """An image and what is on it, best first."""
    told = (f"{x['name']} {x['score']:.2f} {x['box']}" for x in objects)
    return f"{entry['file']}: {', '.join(told) or 'nothing'}"


def _save(item, entry, output):
    """Writes a picture with its detections."""
    found = entry["detections"]
    with Image.open(io.BytesIO(item.picture.encoded)) as image:
        pixels = np.asarray(image.convert("RGB"))
    drawn = drawing.draw_detections(
        pixels,
        *([each[key] for each in found] for key in ("box", "score", "class")),
        output.class_names,
        output.min_score,
    )
    image_files.save(drawn, output.output_dir / item.source.name)
