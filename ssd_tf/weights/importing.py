"""Import of weights into a new folder with a checkpoint and config.json."""

import dataclasses
import pathlib

import keras

from ssd_tf.command import files, print_table, say
from ssd_tf.config import run as config
from ssd_tf.nets import checkpoint
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import base
from ssd_tf.weights.base import Imported, Report

REPORT_FILE = "import.json"
# Names of each kind that are printed; the file has all.
_SHOWN = 8


def import_weights(
    imported: Imported,
    class_names: tuple[str, ...],
    output: pathlib.Path,
    ignore_missing_vars: bool = False,
) -> Report:
    """Writes a folder with the net, its config.json and the report.

    Args:
      imported: weights from `ssd_tf.weights.formats.load`.
      class_names: names of the classes, without the background.
      output: the new folder.
      ignore_missing_vars: keep the initial values of variables that the file
        lacks.

    Returns:
      The match of weights and net; nothing was written unless it `fits`.

    Raises:
      FileExistsError: `output` exists and is not empty.
    """
    keras.utils.set_random_seed(0)
    net = SSDNet(imported.params)
    report = base.assign(net, imported)
    if not report.fits(ignore_missing_vars):
        return report
    settings = config.Config(
        net.params, class_names, untrained=report.missing + report.fresh
    )
    with files.new_directory(output) as temporary:
        checkpoint.save_weights(net, temporary)
        config.save(settings, temporary)
        files.write_json(
            temporary / REPORT_FILE,
            {**dataclasses.asdict(report), "assumed": imported.assumed},
        )
    return report


def print_report(report: Report, source: str) -> None:
    """Prints how many variables matched, and the first names that did not."""
    mismatched = [
        f"{name} is {ours}, there {theirs}"
        for name, ours, theirs in report.mismatched
    ]
    kinds = {
        "matched": (report.matched, "taken from the file"),
        "missing": (report.missing, "the net needs it, the file lacks it"),
        "fresh": (report.fresh, "not in a classifier, starts fresh"),
        "shape mismatch": (mismatched, "in the net, and in the file"),
        "unused": (report.unused, "in the file, not in the net"),
    }
    print_table(
        pathlib.Path(source).name,
        ["kind", "number", "meaning"],
        [
            [kind, len(names), meaning]
            for kind, (names, meaning) in kinds.items()
        ],
    )
    for kind in ("missing", "shape mismatch", "unused"):
        names, _ = kinds[kind]
        for name in names[:_SHOWN]:
            say(f"{kind}: {name}")
        if len(names) > _SHOWN:
            say(f"{kind}: ... and {len(names) - _SHOWN} more")
