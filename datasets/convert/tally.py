"""Counting what a conversion writes and naming what it does not.

Nothing here knows where annotations come from or how they are written.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator

from ssd_tf.command import UserError
from ssd_tf.datasets.annotation import Annotation, Problem


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
        """How many of each kind; of errors or notes only, if asked."""
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
        """The counts as `manifest.json` holds them; every class has one."""
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
