"""Publishes exported files: all of them at once, and only verified ones.

Everything is made in a folder beside the versions whose name is no number: a
server that watches them does not look into it.
"""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

from ssd_tf.command import UserError, files
from ssd_tf.detect import saved_model

# Of --export_dir: what did not give what the net gives. No number either.
FAILED = "failed"
# Of a rename onto a folder with something in it, or onto a file.
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


@contextlib.contextmanager
def staging(export_dir: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a folder in `export_dir` that is gone afterwards with what is in
    it."""
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


MODELS_CONFIG = "models.config"
BATCHING_CONFIG = "batching.config"
_MODELS = """\
# tensorflow_model_server --model_config_file=/models/{name}/{file}
model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
    # The newest version that is there; to roll back or to serve two:
    # model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
    model_version_policy {{ latest {{ num_versions: 1 }} }}
  }}
}}
"""
_BATCHING = """\
# tensorflow_model_server --enable_batching=true \\
#     --batching_parameters_file=/models/{name}/{file}
# Requests of image_bytes, whatever the size of their images, are merged into
# batches. docs/serving.md says what that is worth and when it is not.
# Exports read max_batch_size for their warm-up requests. Lower it, and versions
# that are there already fail to load, with their requests of more images:
# export them again, or remove their assets.extra.
max_batch_size {{ value: 8 }}
batch_timeout_micros {{ value: 2000 }}
num_batch_threads {{ value: 2 }}
max_enqueued_batches {{ value: 100 }}
allowed_batch_sizes: 1
allowed_batch_sizes: 2
allowed_batch_sizes: 4
allowed_batch_sizes: 8
"""


def max_batch_size(export_dir: pathlib.Path) -> int | None:
    """Reads max_batch_size of batching.config; None where it is not stated."""
    path = export_dir / BATCHING_CONFIG
    if not path.is_file():
        return None
    text = re.sub(r"#.*", "", path.read_text("utf-8"))
    found = re.search(r"max_batch_size\s*:?\s*{\s*value\s*:\s*(\d+)", text)
    return int(found[1]) if found else None


def write(export_dir: pathlib.Path) -> None:
    """Writes both, unless they are there: their owner may have changed them.

    Args:
      export_dir: folder of the versions; its name is the model's, and a
        server finds it as /models/NAME.
    """
    name = export_dir.resolve().name
    for file, text in ((MODELS_CONFIG, _MODELS), (BATCHING_CONFIG, _BATCHING)):
        if not (export_dir / file).exists():
            files.write_text(
                export_dir / file, text.format(name=name, file=file)
            )
