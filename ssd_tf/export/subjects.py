"""The files of an export: which there are, what they say of themselves."""

import importlib.util
import pathlib
from typing import Any, NamedTuple

from ssd_tf.command import UserError
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.detect import description
from ssd_tf.detect import saved_model as serving
from ssd_tf.export import formats, runner


class Subject(NamedTuple):
    """A file, and what runs it."""

    name: str  # a format, or "openvino"
    runtime: str  # one of runner.RUNTIMES
    path: pathlib.Path
    options: DetectionParams  # of the detections that it answers with


def of_file(
    name: str,
    path: pathlib.Path,
    options: DetectionParams,
    raw_heads: bool = False,
) -> list[Subject]:
    """What a file is run by.

    Args:
      name: of its format.
      path, options: see `Subject`.
      raw_heads: a TFLite file has them.
    """
    if name == formats.SAVED_MODEL:
        found = {name: runner.TENSORFLOW}
    elif name == formats.ONNX:
        found = {name: runner.ONNX_RUNTIME}
        if importlib.util.find_spec("openvino"):
            found["openvino"] = runner.OPENVINO
    else:
        found = {name: runner.RAW_HEADS if raw_heads else runner.LITERT}
    return [
        Subject(name, runtime, path, options) for name, runtime in found.items()
    ]


def find(
    export_dir: pathlib.Path,
    options: DetectionParams,
    version: int | None = None,
) -> list[Subject]:
    """What runs all that exports have left in their folder.

    Args:
      export_dir, version: see `files_of`.
      options: of a file that does not state its own.

    Raises:
      UserError: there is no such version.
    """
    return [
        subject
        for name, path, raw_heads in files_of(export_dir, version)
        for subject in of_file(
            name, path, _stated_options(path, options), raw_heads
        )
    ]


def files_of(
    export_dir: pathlib.Path, version: int | None = None
) -> list[tuple[str, pathlib.Path, bool]]:
    """Formats, paths, and whether they are raw heads, of what there is.

    Args:
      export_dir: folder of the versions.
      version: of the SavedModel, by default the highest.

    Raises:
      UserError: there is no such version.
    """
    kinds = [(name, raw) for name in formats.TFLITE for raw in (False, True)]
    found = [
        (name, formats.file_of(export_dir, name, raw), raw)
        for name, raw in (*kinds, (formats.ONNX, False))
    ]
    there = [each for each in found if each[1].is_file()]
    saved_model = _find_version(export_dir, version)
    if saved_model:
        there.insert(0, (formats.SAVED_MODEL, saved_model, False))
    return there


def _find_version(export_dir, version):
    if version is None:
        return serving.find_saved_model(export_dir)
    there = serving.versions(export_dir)
    if version not in there:
        raise UserError(
            f"{export_dir}: has no version {version}; there are "
            f"{', '.join(map(str, there)) or 'none'}"
        )
    return there[version]


def _stated_options(path, default):
    stated = described(path).get("detection", {})
    known = {key: stated.get(key, x) for key, x in vars(default).items()}
    return DetectionParams(**known)


def described(path: pathlib.Path) -> dict[str, Any]:
    """model.json of an exported file; {} where it has none.

    That a damaged file has none is no news: it does not run either.
    """
    try:
        return description.load(path) or {}
    except UserError:
        return {}
