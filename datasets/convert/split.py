"""Converts one split: annotations -> checked images -> counted shards."""

import contextlib
import itertools
import math
import os
import pathlib
from collections.abc import Sequence

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.datasets import catalog
from ssd_tf.datasets.annotation import Annotation, Problem
from ssd_tf.datasets.convert import check
from ssd_tf.datasets.convert.tally import Tally

# Shards of some 50 MB of photographs: enough to read and mix in parallel.
IMAGES_PER_SHARD = 500


def convert_split(
    split: str,
    items: Sequence[Annotation | Problem],
    folder: pathlib.Path,
    class_names: Sequence[str],
    num_shards: int | None,
    num_workers: int | None,
    on_error: str,
) -> dict:
    """Writes the shards of a split and says on the screen what came of it.

    Args:
      split: its name.
      items: everything the reader found.
      folder: where the shards are written.
      class_names: the known classes; boxes of others are dropped.
      num_shards, num_workers: None for a number that suits the split.
      on_error: "skip" or "fail".

    Returns:
      The split's entry in the manifest, but for the source.

    Raises:
      UserError: no image is left, or with "fail" the first bad input.
    """
    annotations = [item for item in items if isinstance(item, Annotation)]
    tally = Tally(on_error)
    tally.note(item for item in items if isinstance(item, Problem))
    # TensorFlow takes seconds to import: first see whether it is needed.
    command.load_tensorflow()
    from ssd_tf.datasets import records

    num_workers = num_workers or _default_workers(len(annotations))
    outcomes = check.check_all(annotations, class_names, num_workers)
    with (
        contextlib.closing(outcomes),
        command.progress(split, len(annotations)) as advance,
    ):
        counted = _advance_with(outcomes, advance)
        shards = [
            records.write_shard(
                folder / name,
                tally.watch(itertools.islice(counted, size)),
                class_names,
            )
            for name, size in _shards(split, len(annotations), num_shards)
        ]
    summary = tally.to_json(class_names)
    if not summary["images"]:
        raise UserError(
            f"split {split!r}: none of its {len(items)} images could be "
            f"converted. {tally.first_problem}"
        )
    _say_summary(split, summary, tally)
    return {"shards": shards, **summary}


def _shards(split, num_images, num_shards):
    """(name, images) per shard; neighbours stay together in a shard."""
    count = num_shards or max(1, math.ceil(num_images / IMAGES_PER_SHARD))
    ends = [index * num_images // count for index in range(count + 1)]
    sizes = [end - start for start, end in itertools.pairwise(ends)]
    return zip(catalog.shard_names(split, count), sizes, strict=True)


def _advance_with(outcomes, advance):
    for outcome in outcomes:
        advance()
        yield outcome


def _default_workers(num_images):
    # Starting a process takes as long as converting some 60 images.
    return max(1, min(os.cpu_count() or 1, num_images // 60))


def _say_summary(split, summary, tally):
    command.say(
        f"{split}: {summary['images']} images, {summary['boxes']} boxes, "
        f"{summary['images_without_boxes']} images without boxes"
    )
    for title, errors in (("WARNING, bad input", True), ("notes", False)):
        counts = tally.problem_counts(errors)
        if counts:
            kinds = ", ".join(f"{n} {kind}" for kind, n in counts.items())
            command.say(
                f"{split}: {title}: {kinds}; named one by one in "
                f"{catalog.MANIFEST}"
            )
