"""Asks TensorFlow Serving for the detections on images.

  python -m ssd_tf.client --server=localhost:8501 --model_name=ssd \\
      --labels=models/ssd/1/assets/labels.txt --output_dir=found IMAGE_OR_FOLDER

writes every picture with its detections and detections.json into found/, as
`ssd_tf.detect` does; without --output_dir it prints them. By REST it needs
neither TensorFlow nor the model's files.

  python -m ssd_tf.client --server=localhost:8500 --protocol=grpc --bench IMAGE

measures how many images a second the server answers.
"""

import io
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from PIL import Image

from ssd_tf import client_bench, command, drawing, files
from ssd_tf.command import UserError
from ssd_tf.datasets import images, labels
from ssd_tf.serving_requests import Asked, RequestError
from ssd_tf.serving_rest import RestClient

JSON_FILE = "detections.json"
_QUALITY = 92  # of JPEGs

FLAGS = flags.FlagValues()
FLAGS.set_gnu_getopt()  # flags may stand behind the images
for _name, _default, _help in (
    ("server", None, "HOST:PORT; TF Serving's are 8501 (REST), 8500 (gRPC)."),
    ("model_name", "ssd", "Name of the model there."),
    ("signature_name", "serving_default", "One that takes encoded images."),
    ("labels", None, "The model's labels.txt [classes are called by number]."),
    ("output_dir", None, "For pictures and JSON [detections are printed]."),
):
    flags.DEFINE_string(_name, _default, _help, flag_values=FLAGS)
for _name, _default, _least, _help in (
    ("version", None, 1, "Version of the model [the highest]."),
    ("batch_size", 8, 1, "Images of a request."),
    (
        *("retries", 3, 0),
        "Times that a request is sent again where there is no connection or "
        "the server is too busy; by gRPC at most 4.",
    ),
    ("concurrency", 4, 1, "Of --bench: requests at a time."),
):
    flags.DEFINE_integer(_name, _default, _help, _least, flag_values=FLAGS)
for _name, _default, _least, _help in (
    ("min_score", 0.5, 0.0, "Smallest score that is drawn or printed."),
    ("timeout", 30.0, 1e-3, "Seconds for a request."),
    ("wait", 0.0, 0.0, "Seconds to wait for the server and the model."),
    ("duration", 10.0, 1e-3, "Of --bench: seconds."),
):
    flags.DEFINE_float(_name, _default, _help, _least, flag_values=FLAGS)
flags.DEFINE_enum(
    "protocol",
    "rest",
    ("rest", "grpc"),
    "grpc needs the extra ssd-tf[serving].",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "bench", False, "Measure the server with the images.", flag_values=FLAGS
)


class Item(NamedTuple):
    """An image to ask for."""

    path: pathlib.Path
    picture: images.Picture


def list_images(arguments: Sequence[str]) -> list[pathlib.Path]:
    """The images that are named, and those of folders, not deeper, sorted.

    Raises:
      UserError: nothing is named, or a folder without images.
    """
    if not arguments:
        raise UserError("no image: name images or folders of them, see --help")
    found = []
    for path in map(pathlib.Path, arguments):
        inside = [path]
        if path.is_dir():
            inside = [
                entry
                for entry in sorted(path.iterdir())
                if entry.suffix.lower() in images.SUFFIXES
            ]
        if not inside:
            known = ", ".join(sorted(images.SUFFIXES))
            raise UserError(f"{path}: no image in it ({known})")
        found += inside
    return list(dict.fromkeys(found))


def read_batches(
    paths: Sequence[pathlib.Path], batch_size: int, bad: list[str]
) -> Iterator[list[Item]]:
    """Images as the model reads them; a line goes to `bad` for any other."""
    batch = []
    for path in paths:
        try:
            batch.append(Item(path, images.prepare(path.read_bytes())))
        except OSError as error:
            bad.append(f"{path}: {error.strerror}")
        except images.UnreadableImageError as error:
            bad.append(f"{path}: {error}")
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def ask(
    predict: Callable[[Sequence[bytes]], dict[str, np.ndarray]],
    batch: Sequence[Item],
    bad: list[str],
) -> Iterator[tuple[Item, dict[str, np.ndarray]]]:
    """Each image with its detections; a line goes to `bad` for any other.

    A server that cannot decode an image refuses its whole batch; that is asked
    once more, image by image.

    Raises:
      RequestError: it is not for an image that there is no answer.
    """
    try:
        found = predict([item.picture.encoded for item in batch])
    except RequestError as error:
        if error.kind != "INVALID_ARGUMENT":
            raise
        if len(batch) == 1:
            bad.append(f"{batch[0].path}: {error}")
            return
        for item in batch:
            yield from ask(predict, [item], bad)
    else:
        for index, item in enumerate(batch):
            yield item, {name: x[index] for name, x in found.items()}


def describe(
    item: Item, found: dict[str, np.ndarray], class_names: Sequence[str]
) -> dict[str, Any]:
    """One image's entry of detections.json, as `ssd_tf.detect` writes it.

    Raises:
      UserError: there are names, but not for every class found.
    """
    count = int(found["num_detections"])
    classes = found["detection_classes"][:count].tolist()
    if class_names and max(classes, default=0) > len(class_names):
        raise UserError(
            f"--labels={FLAGS.labels}: has {len(class_names)} names, but the "
            f"model has found class {max(classes)}; take the model's own file"
        )
    boxes = found["detection_boxes"][:count].astype(float).round(6).tolist()
    scores = found["detection_scores"][:count].astype(float).round(6).tolist()
    return {
        "file": str(item.path),
        "height": item.picture.height,
        "width": item.picture.width,
        "detections": [
            {
                "class": label,
                "name": class_names[label - 1] if class_names else str(label),
                "score": score,
                "box": box,
            }
            for label, score, box in zip(classes, scores, boxes, strict=True)
        ],
    }


def picture_name(path: pathlib.Path) -> str:
    """`a.gif` is drawn to `a.gif.png`; JPEG and PNG keep their names."""
    keeps = path.suffix.lower() in (".jpg", ".jpeg", ".png")
    return path.name if keeps else f"{path.name}.png"


def _check_output_dir(paths):
    """Refuses to draw over an image, or over a picture just drawn."""
    targets = {}
    for path in paths:
        target = pathlib.Path(FLAGS.output_dir) / picture_name(path)
        other = targets.setdefault(target.resolve(), path)
        if other != path or target.resolve() == path.resolve():
            raise UserError(
                f"--output_dir={FLAGS.output_dir}: {path} would be drawn over "
                f"{other}; choose another folder, or ask for one at a time"
            )


def _save(item, entry, class_names):
    """Writes a picture with its detections."""
    found = entry["detections"]
    with Image.open(io.BytesIO(item.picture.encoded)) as image:
        pixels = np.asarray(image.convert("RGB"))
    drawn = drawing.draw_detections(
        pixels,
        *([each[key] for each in found] for key in ("box", "score", "class")),
        class_names,
        FLAGS.min_score,
    )
    path = pathlib.Path(FLAGS.output_dir) / picture_name(item.path)
    with files.replace_file(path) as temporary:
        kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
        drawn.save(temporary, kind, quality=_QUALITY)


def _detect(client, paths, bad):
    """Prints or writes what is found."""
    class_names = labels.read(FLAGS.labels) if FLAGS.labels else []
    entries = []
    with command.progress("detecting", len(paths)) as advance:
        for batch in read_batches(paths, FLAGS.batch_size, bad):
            for item, found in ask(client.predict, batch, bad):
                entries.append(describe(item, found, class_names))
                _show(item, entries[-1], class_names)
            advance(len(batch))
    if FLAGS.output_dir:
        result = {"class_names": class_names, "images": entries}
        files.write_json(pathlib.Path(FLAGS.output_dir) / JSON_FILE, result)
    objects = sum(len(_objects(entry)) for entry in entries)
    where = f" in {FLAGS.output_dir}" if FLAGS.output_dir else ""
    command.say(
        f"{objects} objects with score >= {FLAGS.min_score} on {len(entries)} "
        f"images ({len(bad)} not readable){where}"
    )


def _show(item, entry, class_names):
    if FLAGS.output_dir:
        _save(item, entry, class_names)
    else:
        command.say(_line(entry))


def _objects(entry):
    return [x for x in entry["detections"] if x["score"] >= FLAGS.min_score]


def _line(entry):
    """An image and what is on it, best first."""
    told = (f"{x['name']} {x['score']:.2f} {x['box']}" for x in _objects(entry))
    return f"{entry['file']}: {', '.join(told) or 'nothing'}"


def _bench(client, paths, bad):
    """Measures and prints."""
    batches = [
        [item.picture.encoded for item in batch]
        for batch in read_batches(paths, FLAGS.batch_size, bad)
    ]
    if not batches:
        return
    result = client_bench.measure(
        client.predict, batches, FLAGS.concurrency, FLAGS.duration
    )
    client_bench.print_table(
        f"{FLAGS.server} by {FLAGS.protocol}, {FLAGS.concurrency} requests of "
        f"{len(batches[0])} images at a time",
        result,
    )


def connect(asked: Asked, protocol: str) -> Any:
    """`RestClient` or `GrpcClient`.

    Raises:
      UserError: gRPC's packages are not installed.
    """
    if protocol == "rest":
        return RestClient(asked)
    try:
        command.load_tensorflow()
    except ImportError as error:
        raise UserError(
            f"--protocol=grpc: needs TensorFlow ({error}); --protocol=rest "
            "does not"
        ) from error
    from ssd_tf.serving_grpc import GrpcClient

    return GrpcClient(asked)


def main(arguments: Sequence[str]) -> None:
    """Reads the flags and asks.

    Args:
      arguments: images and folders of images.
    """
    command.require(FLAGS, "server", "model_name")
    paths = list_images(arguments)
    if FLAGS.output_dir:
        _check_output_dir(paths)
    asked = Asked(
        FLAGS.server,
        FLAGS.model_name,
        FLAGS.version,
        FLAGS.signature_name,
        FLAGS.timeout,
        FLAGS.retries,
        FLAGS.concurrency,
    )
    client = connect(asked, FLAGS.protocol)
    client.wait_until_available(FLAGS.wait)
    bad = []
    (_bench if FLAGS.bench else _detect)(client, paths, bad)
    for line in bad:
        command.say(f"not readable: {line}")
    if len(bad) == len(paths):
        raise UserError("no image could be read, see above")


def run() -> None:
    """The command `ssd-client`."""
    command.run(main, FLAGS, __doc__, takes_arguments=True)


if __name__ == "__main__":
    run()
