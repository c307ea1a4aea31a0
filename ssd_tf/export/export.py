"""An export from the net to what is served, and the verification of one.

What does not give what the net gives is kept, but not where it is served.
"""

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.export import formats, publishing, saved_model, verify, warmup
from ssd_tf.export import formats as subjects
from ssd_tf.export import model as description
from ssd_tf.export import publishing as server_files
from ssd_tf.export.formats import Subject
from ssd_tf.export.model import Model
from ssd_tf.export.runner import Found
from ssd_tf.export.saved_model import SavedModelOptions

Entries = Sequence[dict[str, Any]]  # of `verify.verify`


class Wanted(NamedTuple):
    """What is written, and how."""

    formats: Sequence[str]
    options: DetectionParams
    saved_model: SavedModelOptions
    version: int | None = None  # by default the next
    raw_heads: bool = False  # of TFLite files
    calibration: Iterable[np.ndarray] = ()  # for tflite_int8


class Images(NamedTuple):
    """What files are verified on."""

    encoded: Sequence[bytes]
    measure: Callable[[Found], float] | None = None  # detections -> mAP
    batch_size: int = 1


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
    if formats.SAVED_MODEL in names:
        publishing.check_version(export_dir, version)
    formats.check_installed(names)


def export(
    model: Model, export_dir: pathlib.Path, wanted: Wanted, images: Images
) -> None:
    """Writes formats, and shows what gives what the net gives.

    Args:
      model: with its weights.
      export_dir: folder of the versions.
      wanted, images: see there.

    Raises:
      UserError: a conversion has failed, and nothing is written; or something
        is beyond tolerance, and lies in `publishing.FAILED`.
    """
    with publishing.staging(export_dir) as folder:
        written = _write(model, export_dir, folder, wanted)
        files = [
            subject
            for name, path in written.items()
            for subject in subjects.of_file(
                name, path, wanted.options, wanted.raw_heads
            )
        ]
        entries = _verify(model, files, images)
        places = _publish(model, export_dir, written, wanted, entries)
    _finish(
        export_dir,
        [each | {"path": places.get(each["path"])} for each in entries],
    )


def _write(model, export_dir, folder, wanted):
    """Formats and the paths of their files, which nobody sees yet."""
    written = {}
    with command.progress("writing", len(wanted.formats), "files") as advance:
        for name in wanted.formats:
            if name == formats.SAVED_MODEL:
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
    limit = server_files.max_batch_size(export_dir) or warmup.BATCH_SIZE
    how = wanted.saved_model._replace(
        warmup_batch=min(limit, warmup.BATCH_SIZE)
    )
    written = saved_model.build(
        model, folder / formats.SAVED_MODEL, wanted.options, how
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
    names = sorted(written, key=lambda name: name == formats.SAVED_MODEL)
    places = {}
    for name in names:
        path = written[name]
        if str(path) in failed:
            placed = publishing.keep_failed(path, export_dir)
        elif name == formats.SAVED_MODEL:
            server_files.write(export_dir)
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
) -> None:
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
        for each in subjects.find(export_dir, options, version)
        if _is_of(each, own)
    ]
    if not files:
        raise UserError(
            f"--export_dir={export_dir}: has no file of this checkpoint that "
            "could be verified; name --formats to write some"
        )
    _finish(export_dir, _verify(model, files, images))


def _is_of(subject: Subject, weights: str) -> bool:
    """Whether a file states these weights, or none; others are named."""
    stated = subjects.described(subject.path)
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
