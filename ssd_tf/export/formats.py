"""The formats of an export by their names, and where their files are."""

import importlib.util
import os
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ssd_tf import command
from ssd_tf.command import UserError, files
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.config.export import ONNX, SAVED_MODEL, TFLITE
from ssd_tf.detect import description
from ssd_tf.detect import saved_model as serving
from ssd_tf.export import runner
from ssd_tf.export.model import Model, describe

# Format -> what its converter and its runtime need of the extra [export].
_EXTRAS = {ONNX: ("tf2onnx", "onnx", "onnxruntime")} | dict.fromkeys(
    TFLITE, ("ai_edge_litert",)
)


def check_installed(names: Iterable[str]) -> None:
    """Refuses formats that could not be written or verified here.

    Raises:
      UserError: naming what is not installed.
    """
    for name in names:
        for module in _EXTRAS.get(name, ()):
            command.import_extra(module, "export")


def file_of(
    export_dir: str | os.PathLike, name: str, raw_heads: bool = False
) -> pathlib.Path:
    """Returns the path of a format's file: model.onnx, model_int8.tflite ..."""
    if name == ONNX:
        return pathlib.Path(export_dir) / "model.onnx"
    precision = name.removeprefix("tflite")
    heads = "_raw" if raw_heads else ""
    return pathlib.Path(export_dir) / f"model{precision}{heads}.tflite"


def write_file(
    model: Model,
    name: str,
    export_dir: str | os.PathLike,
    options: DetectionParams = DetectionParams(),
    raw_heads: bool = False,
    calibration: Iterable[np.ndarray] = (),
) -> pathlib.Path:
    """Writes a TFLite or ONNX file in place of an older one.

    Args:
      model: with its weights.
      name: a format that is not `saved_model`.
      export_dir: for the file.
      options: of the detections.
      raw_heads, calibration: see `tflite.convert`.

    Raises:
      UserError: the converter is not installed, or has failed.
    """
    check_installed([name])
    path = file_of(export_dir, name, raw_heads)
    if name == ONNX:
        content = _onnx(model, options)
    else:
        content = _tflite(model, name, options, raw_heads, calibration)
    with files.replace_file(path) as temporary:
        temporary.write_bytes(content)
    return path


def _tflite(model, name, options, raw_heads, calibration):
    from ssd_tf.export import tflite

    try:
        return tflite.convert(model, name, options, raw_heads, calibration)
    except tflite.ConversionError as error:
        raise UserError(f"--formats={name}: {error}") from error


def _onnx(model, options):
    from ssd_tf.export import onnx_file

    try:
        converted = onnx_file.convert(model, options)
    except onnx_file.ConversionError as error:
        raise UserError(f"--formats=onnx: {error}") from error
    return converted.SerializeToString()


def write_companions(
    model: Model, export_dir: pathlib.Path, options: DetectionParams
) -> None:
    """Writes labels.txt and model.json beside TFLite and ONNX files."""
    names = "".join(f"{name}\n" for name in model.class_names)
    files.write_text(export_dir / description.LABELS_FILE, names)
    files.write_json(
        export_dir / description.MODEL_FILE,
        describe(model, options),
    )


class ExportedFile(NamedTuple):
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
) -> list[ExportedFile]:
    """Returns the runs of a file, one per runtime.

    Args:
      name: of its format.
      path, options: see `ExportedFile`.
      raw_heads: a TFLite file has them.
    """
    if name == SAVED_MODEL:
        found = {name: runner.TENSORFLOW}
    elif name == ONNX:
        found = {name: runner.ONNX_RUNTIME}
        if importlib.util.find_spec("openvino"):
            found["openvino"] = runner.OPENVINO
    else:
        found = {name: runner.RAW_HEADS if raw_heads else runner.LITERT}
    return [
        ExportedFile(name, runtime, path, options)
        for name, runtime in found.items()
    ]


def find(
    export_dir: pathlib.Path,
    options: DetectionParams,
    version: int | None = None,
) -> list[ExportedFile]:
    """Finds all exported files of a folder, one entry per runtime.

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
    """Returns formats, paths, and whether they are raw heads, of what there is.

    Args:
      export_dir: folder of the versions.
      version: of the SavedModel, by default the highest.

    Raises:
      UserError: there is no such version.
    """
    kinds = [(name, raw) for name in TFLITE for raw in (False, True)]
    found = [
        (name, file_of(export_dir, name, raw), raw)
        for name, raw in (*kinds, (ONNX, False))
    ]
    there = [each for each in found if each[1].is_file()]
    saved_model = _find_version(export_dir, version)
    if saved_model:
        there.insert(0, (SAVED_MODEL, saved_model, False))
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
    """Returns model.json of an exported file; {} where it has none.

    That a damaged file has none is no news: it does not run either.
    """
    try:
        return description.load(path) or {}
    except UserError:
        return {}
