"""Detects on a stream of pictures: read, batch, detect, write.

Reading and writing are done by threads beside the detector; at most three
batches of pictures are in memory.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ssd_tf import command
from ssd_tf.command import UserError, threads
from ssd_tf.detect import outputs as detect_outputs
from ssd_tf.detect import reading
from ssd_tf.detect.detectors import Detector
from ssd_tf.detect.formats import FORMATS
from ssd_tf.detect.inputs import Source, Video
from ssd_tf.detect.outputs import Outputs
from ssd_tf.detect.reading import Picture, Reader, Result, Unreadable

# Pillow and TensorFlow let go of the interpreter while they decode.
_THREADS = min(4, os.cpu_count() or 1)


class Summary(NamedTuple):
    """Counts of a finished run."""

    pictures: int
    objects: int  # with a score that is drawn
    unreadable: list[Unreadable]  # and videos that could not be drawn
    # Error or Ctrl-C after the first pictures; their results are written.
    ended_by: BaseException | None = None


def run(
    detector: Detector,
    sources: Sequence[Source],
    reader: Reader,
    outputs: Outputs,
    batch_size: int = 8,
) -> Summary:
    """Detects on all pictures of the sources and writes what is asked for.

    Args:
      detector: the detector.
      sources: sources from `inputs.find`.
      reader: reader that prepares for the same detector.
      outputs: the outputs to write.
      batch_size: pictures per batch.

    Raises:
      UserError, KeyboardInterrupt: before the first picture was done.
    """
    total = reading.count(sources, reader.max_frames)
    has_videos = any(isinstance(source, Video) for source in sources)
    unit = "frames" if has_videos else "images"
    pictures, objects, unreadable, ended_by = 0, 0, [], None

    def failed(file: str, reason: str) -> None:
        unreadable.append(Unreadable(file, reason))

    with (
        command.progress("detecting", total, unit) as advance,
        _writing(outputs, failed) as write,
        contextlib.closing(
            _results(detector, sources, reader, outputs, batch_size)
        ) as results,
    ):
        try:
            for result in results:
                if isinstance(result, Unreadable):
                    unreadable.append(result)
                    advance(units=0)
                    continue
                write(result)
                pictures += 1
                objects += len(result.found.above(outputs.min_score))
                advance()
        except (UserError, KeyboardInterrupt) as error:
            # Without any picture, files of an earlier run are worth more.
            if not pictures:
                raise
            ended_by = error
    return Summary(pictures, objects, unreadable, ended_by)


def _results(
    detector: Detector,
    sources: Sequence[Source],
    reader: Reader,
    outputs: Outputs,
    batch_size: int,
) -> Iterator[Result | Unreadable]:
    """Returns results, their pictures and crops written, in the order of the
    input."""
    jobs = reading.read(sources, reader)
    pictures = threads.prefetch(
        threads.ordered_map(lambda job: job(), jobs, _THREADS, _THREADS),
        batch_size,
    )
    return threads.ordered_map(
        functools.partial(_render, outputs=outputs),
        detect(detector, pictures, batch_size),
        _THREADS,
        batch_size,
    )


def _render(result, outputs):
    if isinstance(result, Unreadable):
        return result
    return detect_outputs.render(result, outputs)


def detect(
    detector: Detector,
    pictures: Iterable[Picture | Unreadable],
    batch_size: int,
) -> Iterator[Result | Unreadable]:
    """Detects on pictures in batches; the last one may be smaller.

    Yields:
      A result per picture, and what is unreadable in its place.
    """
    waiting = []
    for picture in pictures:
        waiting.append(picture)
        if sum(isinstance(each, Picture) for each in waiting) == batch_size:
            yield from _detect_batch(detector, waiting)
            waiting = []
    yield from _detect_batch(detector, waiting)


def _detect_batch(detector, items):
    pictures = [item for item in items if isinstance(item, Picture)]
    found = iter(detector.detect(pictures))
    for item in items:
        if isinstance(item, Unreadable):
            yield item
            continue
        result = next(found)
        # A server may refuse a single image.
        if isinstance(result, UserError):
            yield Unreadable(item.file, str(result))
        else:
            yield Result(item._replace(prepared=None), result)


@contextlib.contextmanager
def _writing(
    outputs: Outputs, failed: Callable[[str, str], None]
) -> Iterator[Callable[[Result], None]]:
    """Opens all files that grow with every result.

    Args:
      outputs: what is written.
      failed: see `detect_outputs.write_videos`.
    """
    writers = [
        functools.partial(_write_format, name=name, outputs=outputs)
        for name in outputs.formats
    ]
    if outputs.pictures:
        writers.append(
            functools.partial(
                detect_outputs.write_videos, outputs.output_dir, failed=failed
            )
        )
    with contextlib.ExitStack() as stack:
        pushes = [
            stack.enter_context(threads.pushing(writer)) for writer in writers
        ]

        def write(result: Result) -> None:
            for push in pushes:
                push(result)

        yield write


def _write_format(results, name, outputs):
    FORMATS[name](
        outputs.output_dir, results, outputs.class_names, outputs.min_score
    )
