"""`detections.json` of `ssd_tf.detect` and `ssd_tf.client`, image by image."""

import contextlib
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ssd_tf.command import files

JSON_FILE = "detections.json"


@contextlib.contextmanager
def writing(
    path: pathlib.Path, class_names: Sequence[str]
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields what writes an image's entry, one line.

    The file is complete at the end, and not there where that is an exception.
    """
    with (
        files.replace_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        file.write(f'{{"class_names": {_as_json(list(class_names))},\n')
        file.write('"images": [')
        separator = "\n"

        def write(entry: dict[str, Any]) -> None:
            nonlocal separator
            file.write(separator + _as_json(entry))
            separator = ",\n"

        yield write
        file.write("\n]}\n")


def _as_json(value):
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
