"""Names for files that are made from other names: safe, short, no two alike."""

import itertools
import os
import pathlib
import re

# A file system takes 255 bytes; a temporary name, a number and a suffix come
# on top.
MAX_BYTES = 200
# What a path, a shell or another system would take for something else.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


def safe(text: str) -> str:
    """Returns any text as one part of a path: "a/b: c" becomes "a_b_ c"."""
    return shortened(_UNSAFE.sub("_", text).strip(". ") or "_")


def shortened(name: str) -> str:
    """Returns the name with its suffix, cut to `MAX_BYTES` bytes."""
    encoded = os.fsencode(name)
    if len(encoded) <= MAX_BYTES:
        return name
    suffix = os.fsencode(pathlib.PurePath(name).suffix)[:20]
    stem = encoded[: MAX_BYTES - len(suffix)].decode("utf-8", "ignore")
    return stem + suffix.decode("utf-8", "ignore")


def shown(path: str | os.PathLike) -> str:
    """Returns a path for people and for JSON, whatever bytes are in it."""
    return os.fsencode(path).decode("utf-8", "replace")


class UniqueNames:
    """Names given so far; upper and lower case are the same."""

    def __init__(self):
        """None is given."""
        self._taken: set[str] = set()
        self._next_number: dict[str, itertools.count] = {}

    def give(self, *candidates: str) -> str:
        """Returns the first candidate that is free, else the last with a
        number.

        Args:
          candidates: relative paths; of a.jpg the numbered ones are a_2.jpg,
            a_3.jpg ...
        """
        for name in itertools.chain(candidates, self._numbered(candidates[-1])):
            if name.casefold() not in self._taken:
                break
        self._taken.add(name.casefold())
        return name

    def _numbered(self, name):
        path = pathlib.PurePosixPath(name)
        numbers = self._next_number.setdefault(name, itertools.count(2))
        for number in numbers:
            yield str(path.with_name(f"{path.stem}_{number}{path.suffix}"))
