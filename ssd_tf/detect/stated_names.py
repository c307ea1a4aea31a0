"""Class names that the file of a detector carries, or that lie beside it.

Nothing here runs a model, or knows what the classes of a data set are.
"""

import os
import pathlib
import zipfile
import zlib
from collections.abc import Sequence

from ssd_tf.command import UserError
from ssd_tf.detect import runtimes

LABELS_FILE = "labels.txt"
# Where TFLite's metadata keep them: in a ZIP archive behind the model.
_LABEL_MAP = "labelmap.txt"
# What label maps write for a number that no class has.
_NOBODY = ("", "???")


def inside(path: str | os.PathLike) -> tuple[str, ...] | None:
    """The names in a .tflite or .onnx file; None where it has none.

    Element k - 1 names class k. Numbers that no class has are named
    `unused_<number>`.

    Raises:
      UserError: no model, or its list of names is damaged.
    """
    path = pathlib.Path(path)
    text = None
    if path.suffix == ".tflite":
        text = _label_map(path)
    elif path.suffix == ".onnx":
        text = runtimes.onnx_metadata(path).get("class_names")
    return _named(text.rstrip().splitlines()) if text else None


def beside(path: str | os.PathLike) -> pathlib.Path | None:
    """The labels.txt in the folder of a file, where there is one."""
    labels = pathlib.Path(path).with_name(LABELS_FILE)
    return labels if labels.is_file() else None


def _label_map(path):
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if _LABEL_MAP not in archive.namelist():
                return None
            return archive.read(_LABEL_MAP).decode("utf-8-sig")
    except (zipfile.BadZipFile, zlib.error, EOFError, UnicodeError) as error:
        raise UserError(
            f"{path}: its {_LABEL_MAP} cannot be read ({error}); name its "
            "classes by --labels"
        ) from error


def _named(lines: Sequence[str]) -> tuple[str, ...]:
    stripped = [line.strip() for line in lines]
    return tuple(
        f"unused_{number}" if name in _NOBODY else name
        for number, name in enumerate(stripped, start=1)
    )
