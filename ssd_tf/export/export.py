"""One export: from a net to verified files, or the verification of files.

The library call under `python -m ssd_tf.export`, the demo and
`ssd_tf.export_model`. A file that does not agree with the net is kept, but not
where it would be served.
"""

import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.command.settings import build
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.config.export import SAVED_MODEL, TFLITE_INT8, ExportOptions
from ssd_tf.export import formats, publishing, saved_model, verify, warmup
from ssd_tf.export import images as export_images
from ssd_tf.export import model as description
from ssd_tf.export.decoding import Decoding
from ssd_tf.export.formats import ExportedFile
from ssd_tf.export.model import Model
from ssd_tf.export.runner import Found
from ssd_tf.export.saved_model import SavedModelOptions

Entries = Sequence[dict[str, Any]]  # of `verify.verify`


class Wanted(NamedTuple):
    """Files to write, and their options."""

    formats: Sequence[str]
    options: DetectionParams
    saved_model: SavedModelOptions
    version: int | None = None  # by default the next
    raw_heads: bool = False  # of TFLite files
    calibration: Iterable[np.ndarray] = ()  # for tflite_int8


class Images(NamedTuple):
    """Images that files are verified on."""

    encoded: Sequence[bytes]
    measure: Callable[[Found], float] | None = None  # detections -> mAP
    batch_size: int = 1


def export_model(
    checkpoint_path: str | os.PathLike,
    export_dir: str | os.PathLike,
    **settings: Any,
) -> dict[str, pathlib.Path]:
    """Exports a trained net and verifies every file in its own runtime.

    Args:
      checkpoint_path: a train_dir, for its latest checkpoint, or a checkpoint.
      export_dir: folder of the versions.
      **settings: those of `python -m ssd_tf.export`, such as
        `formats=["saved_model", "onnx"]`, `verify="data/bccd"`.

    Returns:
      The files by format; the SavedModel's folder.

    Raises:
      UserError: a setting is invalid, a conversion fails, or a file does not
        agree with the net.
    """
    values = {"checkpoint_path": checkpoint_path, "export_dir": export_dir}
    return run(build(ExportOptions, values | settings))


def run(options: ExportOptions) -> dict[str, pathlib.Path]:
    """Exports and verifies what the options say; see `export_model`."""
    # Refuse whatever can be refused before anything is made.
    export_dir = pathlib.Path(options.export_dir)
    names = formats_of(options, formats.files_of(export_dir))
    if TFLITE_INT8 in names and not options.dataset_dir:
        raise UserError(
            "--formats=tflite_int8: learns its ranges from images; name "
            "them by --dataset_dir"
        )
    check(export_dir, names, options.version)
    # Load the net, the images to verify on and those to calibrate with.
    model = description.load(options.checkpoint_path, options.metrics)
    verified_on = _images(options, model)
    if not names:
        return verify_all(
            model, export_dir, options.detection, options.version, verified_on
        )
    # Write, verify and publish.
    return export(
        model, export_dir, _wanted(options, model, names), verified_on
    )


def formats_of(options: ExportOptions, there: Sized) -> tuple[str, ...]:
    """Returns the formats to be written.

    Args:
      options: the options.
      there: the files that --export_dir has already.
    """
    only_verify = options.verify and "formats" not in options.given
    return () if only_verify and there else options.formats


def _images(options, model):
    """Returns the images that files are verified on."""
    size = options.verify_batch_size
    if not options.verify:
        return Images(export_images.samples(), None, size)
    encoded, measure = export_images.annotated(
        options.verify,
        options.verify_split_name,
        options.verify_images,
        model.class_names,
    )
    return Images(encoded, measure, size)


def _wanted(options, model, names):
    """Returns the files to write, and their options."""
    calibration = ()
    if TFLITE_INT8 in names:
        calibration = export_images.calibration(
            options.dataset_dir,
            options.dataset_split_name,
            options.calibration_images,
            model.net.params.img_shape,
        )
    decoding = Decoding(
        options.max_image_megapixels * 10**6, options.bad_images == "empty"
    )
    how = SavedModelOptions(
        decoding, options.input_type, export_images.samples()
    )
    return Wanted(
        names,
        options.detection,
        how,
        options.version,
        options.raw_heads,
        calibration,
    )


def check(
    export_dir: pathlib.Path, names: Sequence[str], version: int | None
) -> None:
    """Refuses what would fail later.

    Args:
      export_dir: folder of the versions.
      names: of formats that are to be written.
      version: of the SavedModel.

    Raises:
      UserError: the folder is a version itself, the version is there already,
        or a converter is not installed.
    """
    publishing.check_folder(export_dir)
    if SAVED_MODEL in names:
        publishing.check_version(export_dir, version)
    formats.check_installed(names)


def export(
    model: Model, export_dir: pathlib.Path, wanted: Wanted, images: Images
) -> dict[str, pathlib.Path]:
    """Writes formats, verifies them, and publishes those that agree.

    Args:
      model: the net with its weights.
      export_dir: folder of the versions.
      wanted: the files to write.
      images: the images to verify on.

    Returns:
      The published files by format.

    Raises:
      UserError: a conversion has failed, and nothing is written; or something
        is beyond tolerance, and lies in `publishing.FAILED`.
    """
    with publishing.staging(export_dir) as folder:
        written = _write(model, export_dir, folder, wanted)
        files = [
            subject
            for name, path in written.items()
            for subject in formats.of_file(
                name, path, wanted.options, wanted.raw_heads
            )
        ]
        entries = _verify(model, files, images)
        places = _publish(model, export_dir, written, wanted, entries)
    _finish(
        export_dir,
        [each | {"path": places.get(each["path"])} for each in entries],
    )
    return {
        name: pathlib.Path(places[str(path)]) for name, path in written.items()
    }


def _write(model, export_dir, folder, wanted):
    """Returns formats and the paths of their files, which nobody sees yet."""
    written = {}
    with command.progress("writing", len(wanted.formats), "files") as advance:
        for name in wanted.formats:
            if name == SAVED_MODEL:
                path = _write_saved_model(model, export_dir, folder, wanted)
            else:
                path = formats.write_file(
                    model,
                    name,
                    folder,
                    wanted.options,
                    wanted.raw_heads,
                    wanted.calibration,
                )
            written[name] = path
            advance()
    return written


def _write_saved_model(model, export_dir, folder, wanted):
    # A server loads no version whose warm-up requests it refuses.
    limit = publishing.max_batch_size(export_dir) or warmup.BATCH_SIZE
    how = wanted.saved_model._replace(
        warmup_batch=min(limit, warmup.BATCH_SIZE)
    )
    written = saved_model.build(
        model, folder / SAVED_MODEL, wanted.options, how
    )
    if not (written / warmup.WARMUP_FILE).is_file():
        command.say("no warm-up requests: pip install 'ssd-tf[serving]'")
    return written


def _publish(model, export_dir, written, wanted, entries):
    """Moves what has been written to where it is served or kept.

    Returns:
      From the paths where they were to where they are.
    """
    failed = {each["path"] for each in entries if each.get("failures")}
    # The SavedModel is last: from then on a server runs it.
    names = sorted(written, key=lambda name: name == SAVED_MODEL)
    places = {}
    for name in names:
        path = written[name]
        if str(path) in failed:
            placed = publishing.keep_failed(path, export_dir)
        elif name == SAVED_MODEL:
            publishing.write(export_dir)
            placed = publishing.publish_version(
                path, export_dir, wanted.version
            )
        else:
            formats.write_companions(model, export_dir, wanted.options)
            placed = publishing.publish_file(path, export_dir)
        command.say(f"{placed}")
        places[str(path)] = str(placed)
    return places


def verify_all(
    model: Model,
    export_dir: pathlib.Path,
    options: DetectionParams,
    version: int | None,
    images: Images,
) -> dict[str, pathlib.Path]:
    """Compares what is there with the net it was exported from.

    Args:
      model: with its weights.
      export_dir: folder of the versions.
      options: of files that do not state their own.
      version: of the SavedModel, by default the highest.
      images: see there.

    Raises:
      UserError: nothing is there, or something is beyond tolerance.
    """
    own = description.fingerprint(model.net)
    files = [
        each
        for each in formats.find(export_dir, options, version)
        if _is_of(each, own)
    ]
    if not files:
        raise UserError(
            f"--export_dir={export_dir}: has no file of this checkpoint that "
            "could be verified; name --formats to write some"
        )
    _finish(export_dir, _verify(model, files, images))
    return {each.name: each.path for each in files}


def _is_of(subject: ExportedFile, weights: str) -> bool:
    """Returns whether a file states these weights, or none; names others."""
    stated = formats.described(subject.path)
    if stated.get("weights_sha256", weights) == weights:
        return True
    command.say(
        f"{subject.path}: is of other weights, those of "
        f"{stated.get('checkpoint')}, and left out"
    )
    return False


def _verify(model, files, images):
    """Runs files beside the net and prints the table of their entries."""
    entries = verify.verify(model.net, files, *images)
    verify.print_table(entries, images.batch_size)
    for note in verify.notes(entries):
        command.say(note)
    return entries


def _finish(export_dir: pathlib.Path, entries: Sequence[Mapping]) -> None:
    """Writes verify.json, and refuses what is beyond tolerance."""
    verify.write(export_dir, entries)
    failed = [entry for entry in entries if entry.get("failures")]
    for entry in failed:
        command.say(f"{entry['path']}: {'; '.join(entry['failures'])}")
    if failed:
        raise UserError(
            f"{export_dir}: {len(failed)} of {len(entries) - 1} files do not "
            "give what the net gives; see verify.json"
        )
