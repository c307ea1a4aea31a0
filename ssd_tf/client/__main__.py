"""Asks TensorFlow Serving for the detections on images.

  python -m ssd_tf.client --server=localhost:8501 --model_name=ssd \\
      --labels=models/ssd/1/assets/labels.txt --output_dir=found IMAGE_OR_FOLDER

writes every picture with its detections and detections_by_image.json into
found/, as `ssd_tf.detect` does; without --output_dir it prints them. By REST it
needs neither TensorFlow nor the model's files.

  python -m ssd_tf.client --server=localhost:8500 --protocol=grpc --bench IMAGE

measures the images per second that the server answers.

  python -m ssd_tf.client --server=localhost:8501 --model_name=ssd --wait=60

waits for the model, and fails if it cannot be asked by then.
"""

import dataclasses
import functools
import itertools
import pathlib
import sys
from collections.abc import Sequence

from PIL import Image

from ssd_tf import command
from ssd_tf.client import bench
from ssd_tf.client.detector import ServerDetector, connect
from ssd_tf.client.errors import Asked
from ssd_tf.command import UserError
from ssd_tf.command.names import shown
from ssd_tf.command.settings import require, setting
from ssd_tf.detect import image_files, inputs, reading
from ssd_tf.detect import run as detect_run
from ssd_tf.detect.inputs import Still
from ssd_tf.detect.outputs import Outputs
from ssd_tf.detect.reading import Picture, Reader

# Exit code that a shell gives a process ended by SIGINT.
_EXIT_CODE_OF_CTRL_C = 130
# Batches held in memory while the server is measured.
BENCH_BATCHES = 16

_server = functools.partial(setting, section="server")
_images = functools.partial(setting, section="images")
_bench = functools.partial(setting, section="benchmark")


@dataclasses.dataclass(frozen=True)
class ClientOptions:
    """Everything that the command takes beside the images."""

    server: str | None = _server(
        None, "HOST:PORT; TF Serving's are 8501 (REST) and 8500 (gRPC)."
    )
    model_name: str = _server("ssd", "Name of the model on the server.")
    version: int | None = _server(
        None, "Version of the model [the highest].", low=1
    )
    signature_name: str = _server(
        "serving_default", "Signature that takes encoded images."
    )
    protocol: str = _server(
        "rest",
        "Protocol; grpc needs the extra ssd-tf[serving].",
        choices=("rest", "grpc"),
    )
    timeout: float = _server(
        30.0, "Seconds for a request with all its retries.", low=1e-3
    )
    retries: int = _server(
        3,
        "Number of times that a request is sent again if there is no "
        "connection or the server is too busy to begin with it.",
        low=0,
    )
    wait: float | None = _server(
        None,
        "Seconds to wait for the server and the model; without images nothing "
        "else is done.",
        low=0,
    )
    labels: str | None = _images(
        None, "The model's labels.txt [class numbers]."
    )
    batch_size: int = _images(8, "Images per request.", low=1)
    max_image_megapixels: int = _images(
        image_files.MAX_MEGAPIXELS, "Larger images are not read.", low=1
    )
    output_dir: str | None = _images(
        None, "Folder for pictures and JSON [detections are printed]."
    )
    min_score: float = _images(
        0.5, "Lowest score that is drawn or printed.", low=0
    )
    bench: bool = _bench(
        False,
        f"Measure the server with the images, at most {BENCH_BATCHES} batches "
        "of them.",
    )
    concurrency: int = _bench(4, "Number of concurrent requests.", low=1)
    duration: float = _bench(10.0, "Seconds of the measurement.", low=1e-3)


def find(arguments: Sequence[str]) -> list[Still]:
    """Finds the named images, and those of folders, not deeper, sorted.

    Raises:
      UserError: nothing is named, or a folder holds no image.
    """
    if not arguments:
        raise UserError("no image: name images or folders of them, see --help")
    paths = [path for each in arguments for path in inputs.images_of(each)]
    naming = inputs.Naming()
    return [
        Still(
            path,
            naming.picture(shown(path.name)),
            naming.source_id(shown(path.name)),
        )
        for path in dict.fromkeys(paths)
    ]


def _reader(detector, options):
    max_pixels = options.max_image_megapixels * 10**6
    return Reader(detector.prepare, inputs.Naming(), max_pixels)


def detect(
    detector: ServerDetector, sources: Sequence[Still], options: ClientOptions
) -> None:
    """Prints or writes the detections on all images.

    Raises:
      UserError: not all was done, or nothing.
    """
    is_printed = not options.output_dir
    outputs = Outputs(
        pathlib.Path(options.output_dir or "."),
        detector.class_names,
        options.min_score,
        ("text",) if is_printed else ("json",),
        pictures=not is_printed,
    )
    summary = detect_run.run(
        detector,
        sources,
        _reader(detector, options),
        outputs,
        options.batch_size,
    )
    where = "" if is_printed else f" in {options.output_dir}"
    command.say(
        f"{summary.objects} objects with score >= {options.min_score} on "
        f"{summary.pictures} images ({len(summary.unreadable)} not readable)"
        f"{where}"
    )
    for file, reason in summary.unreadable:
        command.say(f"not readable: {file}: {reason}")
    kept = f"; what was found until then is{where}" if where else ""
    if isinstance(summary.ended_by, KeyboardInterrupt):
        command.say(f"interrupted{kept}")
        sys.exit(_EXIT_CODE_OF_CTRL_C)
    if summary.ended_by:
        raise UserError(f"{summary.ended_by}{kept}") from summary.ended_by
    if not summary.pictures:
        raise UserError("no image could be read, see above")


def measure(
    detector: ServerDetector, sources: Sequence[Still], options: ClientOptions
) -> None:
    """Measures the server with the first batches of images.

    Raises:
      UserError: no image could be read, or no request was answered.
    """
    size = options.batch_size
    jobs = reading.read(sources, _reader(detector, options))
    read = itertools.islice((job() for job in jobs), size * BENCH_BATCHES)
    encoded = []
    for each in read:
        if isinstance(each, Picture):
            encoded.append(each.encoded)
        else:
            command.say(f"not readable: {each.file}: {each.reason}")
    if not encoded:
        raise UserError("no image could be read, see above")
    batches = [encoded[k : k + size] for k in range(0, len(encoded), size)]
    requests = [
        bench.Request(detector.client.prepare(batch), len(batch))
        for batch in batches
    ]
    result = bench.measure(requests, options.concurrency, options.duration)
    bench.print_table(
        f"{options.server} by {options.protocol}, {options.concurrency} "
        f"requests of {requests[0].images} images at a time",
        result,
    )
    if not result.images:
        raise UserError(f"--bench: {options.server} has answered no request")


def main(options: ClientOptions, arguments: Sequence[str]) -> None:
    """Asks the server.

    Args:
      options: the options.
      arguments: images and folders of images.
    """
    require(options, "server", "model_name")
    only_waits = not arguments and options.wait is not None
    sources = [] if only_waits else find(arguments)
    if options.output_dir:
        inputs.check_output_dir(options.output_dir, sources)
    # Pillow's own limit only warns; headers are compared with ours.
    Image.MAX_IMAGE_PIXELS = None
    asked = Asked(
        options.server,
        options.model_name,
        options.version,
        options.signature_name,
        options.timeout,
        options.retries,
    )
    names = inputs.read_labels(options.labels) if options.labels else None
    detector = connect(asked, options.protocol, names)
    detector.client.wait_until_available(options.wait or 0.0)
    if only_waits:
        command.say(f"{options.server}: {options.model_name} can be asked")
        return
    (measure if options.bench else detect)(detector, sources, options)


def run() -> None:
    """Runs the command `ssd-client`."""
    command.run(main, ClientOptions, __doc__, takes_arguments=True)


if __name__ == "__main__":
    run()
