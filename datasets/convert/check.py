"""The heavy part of a conversion, one image at a time, over processes.

Each image is read, decoded whole, mended where needed and its boxes checked
against its true size. Results come back in the order of the input, so that
the output does not depend on the number of processes.
"""

import collections
import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool

from ssd_tf.command import UserError
from ssd_tf.datasets import annotation as annotations_lib
from ssd_tf.datasets import images
from ssd_tf.datasets.annotation import Annotation, Problem

Outcome = tuple[Annotation | None, list[Problem]]

# Images per message to a process: small, that all of them end together.
_CHUNK = 8
# Chunks under way per process: bounds what waits in memory.
_AHEAD = 3


def check(annotation: Annotation, class_names: Sequence[str]) -> Outcome:
    """Makes one annotation fit for a record.

    Returns:
      The annotation with image bytes, their true size and sound boxes, or
      None where the image cannot be read; and everything wrong with it.
    """
    stated = (annotation.height, annotation.width)
    file = str(annotation.image_path or annotation.origin)
    try:
        picture = images.prepare(annotation.read_image(), stated)
    except (OSError, images.UnreadableImageError) as error:
        problem = Problem(file, "unreadable_image", "skipped", str(error))
        return None, [problem]
    problems = [
        Problem(file, kind, "mended", detail) for kind, detail in picture.notes
    ]
    height, width = picture.height, picture.width
    if None not in stated and stated != (height, width):
        detail = (
            f"states {stated[1]} x {stated[0]}, the image has "
            f"{width} x {height}; boxes are taken as its pixels"
        )
        problems.append(
            Problem(annotation.origin, "wrong_size", "mended", detail)
        )
    cleaned, box_problems = annotations_lib.clean(
        annotation, class_names, height, width
    )
    cleaned = dataclasses.replace(cleaned, image_bytes=picture.encoded)
    return cleaned, problems + box_problems


def check_all(
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    num_workers: int,
) -> Iterator[Outcome]:
    """Runs `check` over all annotations, in order.

    Args:
      annotations: as read.
      class_names: the known classes.
      num_workers: processes; with 1 everything happens in this one.

    Raises:
      UserError: a process was killed from outside.
    """
    if num_workers == 1:
        yield from (check(item, class_names) for item in annotations)
        return
    pool = futures.ProcessPoolExecutor(
        num_workers,
        # A forked copy of a process in which TensorFlow runs can hang.
        multiprocessing.get_context("spawn"),
        initializer=_die_with_parent,
    )
    try:
        yield from _in_order(pool, annotations, class_names, num_workers)
    except BrokenProcessPool as error:
        raise UserError(
            "a conversion process was killed, most often for lack of memory "
            "(or the script that called convert() has no `if __name__ == "
            "'__main__':`); nothing was written; convert again with a smaller "
            "--num_workers, or 1"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool, annotations, class_names, num_workers):
    waiting = collections.deque()
    for start in range(0, len(annotations), _CHUNK):
        chunk = annotations[start : start + _CHUNK]
        waiting.append(pool.submit(_check_chunk, chunk, class_names))
        if len(waiting) > _AHEAD * num_workers:
            yield from waiting.popleft().result()
    for future in waiting:
        yield from future.result()


def _check_chunk(annotations, class_names):
    return [check(item, class_names) for item in annotations]


def _die_with_parent():
    """Ends this process with the command, also where that is killed -9.

    A pool's processes hold both ends of their queue, and so would wait for
    work for ever.
    """
    # Ctrl-C reaches every process of a terminal; the command answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait():
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
