"""Replaces converted data as a whole.

New files are made in a hidden folder inside the data folder (so on the same
file system) and renamed into place when all of them are complete, the
manifest last. Whatever kills the conversion before that leaves the data as
they were; the hidden folder is removed by the next conversion.
"""

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Iterable, Iterator

from ssd_tf.command import UserError, files
from ssd_tf.datasets import catalog, labels

# Names given by `files.temporary_name`.
_STALE = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


@contextlib.contextmanager
def staging(output_dir: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a hidden folder in `output_dir`, removed at the end.

    Raises:
      UserError: it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(
                files.staging(output_dir / "conversion")
            )
        except OSError as error:
            raise UserError(
                f"{output_dir}: cannot be written ({error.strerror}); name "
                "another --output_dir"
            ) from error
        yield folder


def remove_stale(output_dir: pathlib.Path) -> None:
    """Removes what killed conversions left in the folder."""
    for path in output_dir.glob(".*.tmp"):
        if not _STALE.fullmatch(path.name):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def publish(
    folder: pathlib.Path,
    output_dir: pathlib.Path,
    manifest: dict,
    splits: Iterable[str],
) -> None:
    """Moves finished shards into place and describes them.

    Args:
      folder: from `staging`, with the shards.
      output_dir: the data folder.
      manifest: manifest of the whole data folder.
      splits: splits whose shards are new; their former shards go.
    """
    for path in sorted(folder.iterdir()):
        os.replace(path, output_dir / path.name)
    labels.write_labels(output_dir / catalog.LABELS, manifest["classes"])
    labels.write_label_map(output_dir / catalog.LABEL_MAP, manifest["classes"])
    files.write_json(output_dir / catalog.MANIFEST, manifest)
    for split in splits:
        shards = manifest["splits"][split]["shards"]
        current = {shard["name"] for shard in shards}
        for name in set(os.listdir(output_dir)) - current:
            if catalog.is_shard_of(name, split):
                (output_dir / name).unlink()
