"""Converts one split: annotations -> checked images -> counted shards."""

import collections
import contextlib
import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.datasets import catalog
from ssd_tf.datasets.annotation import Annotation, Problem
from ssd_tf.datasets.convert import check

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
    """Returns (name, images) per shard; neighbours stay together in a shard."""
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


class Tally:
    """Counts of one split, taken while its annotations pass by.

    Args:
      on_error: "skip" notes bad input; "fail" raises at the first.
    """

    def __init__(self, on_error: str):
        self._on_error = on_error
        self._problems: list[Problem] = []
        self._counts = collections.Counter()
        self._boxes_per_class = collections.Counter()

    def note(self, problems: Iterable[Problem]) -> None:
        """Takes problems down.

        Raises:
          UserError: with `on_error="fail"`, for one that is an error.
        """
        for problem in problems:
            if problem.is_error and self._on_error == "fail":
                raise UserError(
                    f"{problem}; mend it, or convert with --on_error=skip"
                )
            self._problems.append(problem)

    def watch(
        self, outcomes: Iterable[tuple[Annotation | None, list[Problem]]]
    ) -> Iterator[Annotation]:
        """Passes on the annotations that can be written, and counts them."""
        for annotation, problems in outcomes:
            self.note(problems)
            if annotation is not None:
                self._count(annotation)
                yield annotation

    def _count(self, annotation):
        self._boxes_per_class.update(annotation.names)
        self._counts.update(
            images=1,
            images_without_boxes=int(not annotation.names),
            boxes=len(annotation.names),
            difficult=int(annotation.difficult.sum()),
            truncated=int(annotation.truncated.sum()),
            crowd=int(annotation.crowd.sum()),
        )

    def problem_counts(self, errors: bool | None = None) -> dict[str, int]:
        """Counts the problems of each kind; of errors or notes only, if
        asked.
        """
        kinds = collections.Counter(
            problem.kind
            for problem in self._problems
            if errors is None or problem.is_error == errors
        )
        return dict(sorted(kinds.items()))

    @property
    def first_problem(self) -> str:
        """The first problem in words, or nothing."""
        return str(self._problems[0]) if self._problems else ""

    def to_json(self, class_names: Iterable[str]) -> dict:
        """Returns the counts as `manifest.json` holds them; every class has
        one."""
        fields = (
            "images",
            "images_without_boxes",
            "boxes",
            "difficult",
            "truncated",
            "crowd",
        )
        return {
            **{field: self._counts[field] for field in fields},
            "boxes_per_class": {
                name: self._boxes_per_class[name] for name in class_names
            },
            "problem_counts": self.problem_counts(),
            "problems": [dataclasses.asdict(item) for item in self._problems],
        }
