"""Writing files so that nothing half written is ever found.

Everything goes to a temporary name in the target's own folder first and is
then renamed, which is atomic on one file system.
"""

import contextlib
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from typing import Any


def temporary_name(path: str | os.PathLike) -> pathlib.Path:
    """Returns a hidden, never numeric, unused name beside `path`."""
    path = pathlib.Path(path).resolve()  # `.` has no name
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


@contextlib.contextmanager
def replace_file(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary name; on success it becomes `path`, else it goes."""
    temporary = temporary_name(path)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        # A full disk is told of without a name.
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_directory(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields an empty temporary folder; on success it becomes `path`.

    Raises:
      FileExistsError: `path` is there already and is not an empty folder.
    """
    path = pathlib.Path(path)
    temporary = temporary_name(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.exists():
            if any(path.iterdir()):
                raise FileExistsError(f"{path} is there already")
            path.rmdir()
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes UTF-8 text."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: object) -> None:
    """Writes indented JSON; NaN and infinity are refused (not legal JSON)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


@contextlib.contextmanager
def json_list(
    path: str | os.PathLike, before: str = "[", after: str = "]\n"
) -> Iterator[Callable[[Any], None]]:
    """Yields a function that writes one element of a JSON list, one per line.

    The file appears when it is complete, and not at all after an exception.

    Args:
      path: the file.
      before: text up to the first element.
      after: text behind the last element.
    """
    with (
        replace_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        file.write(before)
        separator = "\n"

        def write(value: Any) -> None:
            nonlocal separator
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            file.write(separator + text)
            separator = ",\n"

        yield write
        file.write("\n" + after)
