"""Asks TensorFlow Serving for the detections on images.

  python -m ssd_tf.client --server=localhost:8501 --model_name=ssd \\
      --labels=models/ssd/1/assets/labels.txt --output_dir=found IMAGE_OR_FOLDER

writes every picture with its detections and detections.json into found/, as
`ssd_tf.detect` does; without --output_dir it prints them. By REST it needs
neither TensorFlow nor the model's files.

  python -m ssd_tf.client --server=localhost:8500 --protocol=grpc --bench IMAGE

measures how many images a second the server answers.

  python -m ssd_tf.client --server=localhost:8501 --model_name=ssd --wait=60

waits for the model, and fails where it cannot be asked by then.
"""

import itertools
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from PIL import Image

from ssd_tf import command
from ssd_tf.client import bench, images, outputs
from ssd_tf.client import flags as client_flags
from ssd_tf.client.requests import Asked
from ssd_tf.client.rest import RestClient
from ssd_tf.command import UserError
from ssd_tf.datasets import labels
from ssd_tf.detect import inputs

# As a shell tells of a process that SIGINT has ended.
_EXIT_CODE_OF_CTRL_C = 130

FLAGS = flags.FlagValues()
client_flags.define(FLAGS)


def _detect(client, sources, bad):
    """Prints or writes what is found, also where it ends too early.

    Returns:
      What has ended it, or None.
    """
    output = outputs.Output(
        pathlib.Path(FLAGS.output_dir) if FLAGS.output_dir else None,
        labels.read(FLAGS.labels) if FLAGS.labels else [],
        FLAGS.labels,
        FLAGS.min_score,
    )
    pictures, objects, ended_by = 0, 0, None
    with (
        outputs.showing(output) as show,
        command.progress("detecting", len(sources)) as advance,
    ):
        try:
            for batch in _read_batches(sources, bad):
                answers = images.ask(client.predict, batch, bad)
                for item, found in answers:
                    objects += show(item, found)
                    pictures += 1
                advance(len(batch))
        except (UserError, KeyboardInterrupt) as error:
            # Without any, a file from before is worth more.
            if not pictures:
                raise
            ended_by = error
    where = f" in {FLAGS.output_dir}" if FLAGS.output_dir else ""
    command.say(
        f"{objects} objects with score >= {FLAGS.min_score} on {pictures} "
        f"images ({len(bad)} not readable){where}"
    )
    return ended_by


def _read_batches(sources, bad):
    max_pixels = FLAGS.max_image_megapixels * 10**6
    return images.read_batches(sources, FLAGS.batch_size, bad, max_pixels)


def _bench(client, sources, bad):
    """Measures and prints.

    Returns:
      An error where nothing was answered, else None.
    """
    batches = itertools.islice(
        _read_batches(sources, bad), client_flags.BENCH_BATCHES
    )
    requests = [
        bench.Request(
            client.prepare([item.picture.encoded for item in batch]),
            len(batch),
        )
        for batch in batches
    ]
    if not requests:
        return None
    result = bench.measure(requests, FLAGS.concurrency, FLAGS.duration)
    bench.print_table(
        f"{FLAGS.server} by {FLAGS.protocol}, {FLAGS.concurrency} requests of "
        f"{requests[0].images} images at a time",
        result,
    )
    if result.images:
        return None
    return UserError(f"--bench: {FLAGS.server} has answered no request")


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
    from ssd_tf.client.grpc import GrpcClient

    return GrpcClient(asked)


def main(arguments: Sequence[str]) -> None:
    """Reads the flags and asks.

    Args:
      arguments: images and folders of images.
    """
    command.require(FLAGS, "server", "model_name")
    only_waits = not arguments and FLAGS["wait"].present
    sources = [] if only_waits else images.find(arguments)
    if FLAGS.output_dir:
        inputs.check_output_dir(FLAGS.output_dir, sources)
    # Pillow's own limit only warns; headers are compared with ours.
    Image.MAX_IMAGE_PIXELS = None
    asked = Asked(
        FLAGS.server,
        FLAGS.model_name,
        FLAGS.version,
        FLAGS.signature_name,
        FLAGS.timeout,
        FLAGS.retries,
    )
    client = connect(asked, FLAGS.protocol)
    client.wait_until_available(FLAGS.wait)
    if only_waits:
        command.say(f"{FLAGS.server}: {FLAGS.model_name} can be asked")
        return
    bad = []
    ended_by = (_bench if FLAGS.bench else _detect)(client, sources, bad)
    for line in bad:
        command.say(f"not readable: {line}")
    _end(ended_by, len(bad) == len(sources))


def _end(ended_by, all_bad):
    """Ends with the exit code of what has ended it.

    Raises:
      UserError: not all was done, or nothing.
    """
    kept = ""
    if FLAGS.output_dir and not FLAGS.bench:
        kept = f"; what was found until then is in {FLAGS.output_dir}"
    if isinstance(ended_by, KeyboardInterrupt):
        command.say(f"interrupted{kept}")
        sys.exit(_EXIT_CODE_OF_CTRL_C)
    if ended_by:
        raise UserError(f"{ended_by}{kept}") from ended_by
    if all_bad:
        raise UserError("no image could be read, see above")


def run() -> None:
    """The command `ssd-client`."""
    command.run(main, FLAGS, __doc__, takes_arguments=True)


if __name__ == "__main__":
    run()
