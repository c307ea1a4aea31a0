"""What an export shows to the world: all of it, and only what has been proven.

Everything is made in a folder beside the versions whose name is no number: a
server that watches them does not look into it.
"""

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from ssd_tf.command import UserError
from ssd_tf.detect import saved_model

# Of --export_dir: what did not give what the net gives. No number either.
FAILED = "failed"
# Of a rename onto a folder with something in it, or onto a file.
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


@contextlib.contextmanager
def staging(export_dir: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder in `export_dir` that is gone afterwards with what is in it."""
    export_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".export.", suffix=".tmp", dir=export_dir
    ) as folder:
        yield pathlib.Path(folder)


def check_folder(export_dir: pathlib.Path) -> None:
    """Refuses one version where the folder of the versions is meant.

    Raises:
      UserError: it is one.
    """
    if (export_dir / "saved_model.pb").exists():
        raise UserError(
            f"--export_dir={export_dir}: is one version of an export; name "
            f"the folder of its versions, {export_dir.resolve().parent}"
        )


def check_version(export_dir: pathlib.Path, version: int | None) -> None:
    """Refuses a number that is taken.

    Raises:
      UserError: it is, with or without zeros before it.
    """
    there = version and saved_model.find_version(export_dir, version)
    if there:
        raise UserError(f"{there}: is there already; choose another --version")


def publish_version(
    folder: pathlib.Path, export_dir: pathlib.Path, version: int | None = None
) -> pathlib.Path:
    """Renames a SavedModel to its number, which is when servers see it.

    Args:
      folder: of the model, from `staging`.
      export_dir: folder of the versions.
      version: its number; by default the next that is free, also where
        another export takes one at the same time.

    Returns:
      The version's folder.

    Raises:
      UserError: the version is there already.
    """
    while True:
        check_version(export_dir, version)
        number = version or saved_model.next_version(export_dir)
        try:
            os.rename(folder, export_dir / str(number))
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        else:
            return export_dir / str(number)


def publish_file(path: pathlib.Path, export_dir: pathlib.Path) -> pathlib.Path:
    """Puts a TFLite or ONNX file in place of an older one; its path there."""
    target = export_dir / path.name
    os.replace(path, target)
    return target


def keep_failed(path: pathlib.Path, export_dir: pathlib.Path) -> pathlib.Path:
    """Puts a file or a SavedModel where it can be looked at and nobody serves
    it, in place of an older one; its path there."""
    target = export_dir / FAILED / path.name
    target.parent.mkdir(exist_ok=True)
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(path, target)
    return target
