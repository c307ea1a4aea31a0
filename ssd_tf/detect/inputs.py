"""Finds images, videos, cameras and TFRecord files by the parts of --input,
and names their results.

Nothing here opens a picture.
"""

import glob
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ssd_tf.command import UserError
from ssd_tf.command.names import UniqueNames, safe, shortened, shown
from ssd_tf.datasets import images, labels
from ssd_tf.datasets.catalog import Shard, list_shards

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"}
)
# What else is in the output folder.
CROPS_DIR, VOC_DIR = "crops", "voc"
# Pictures are drawn in the format that they have, others in the first one.
_DRAWN_PICTURES = (".png", ".jpg", ".jpeg")
_DRAWN_VIDEOS = (".mp4",)
_RECORDS = re.compile(
    r".*\.(tf_?records?|record)(-\d{5}-of-\d{5})?|.*-\d{5}-of-\d{5}"
)
_WEBCAM = re.compile(r"webcam(?::(\d+))?")


class Still(NamedTuple):
    """An image file."""

    path: pathlib.Path
    name: str  # of the drawn picture, below the output folder
    source_id: str  # no other picture's, and a file name without suffix


class Video(NamedTuple):
    """A video file or a camera."""

    path: pathlib.Path | None
    name: str  # of the drawn video, below the output folder
    source_id: str  # that of a frame has its number behind it
    camera: int = 0  # where there is no path

    @property
    def file(self) -> str:
        """Its name in results."""
        return shown(self.path) if self.path else f"webcam:{self.camera}"


# A TFRecord file is a `Shard`: the names of its images are in it.
Source = Still | Video | Shard


class Naming:
    """Gives every picture names that no other one has."""

    def __init__(self):
        """None is given."""
        self._files, self._ids = UniqueNames(), UniqueNames()

    def picture(self, relative: str) -> str:
        """Returns path of what is drawn, for an image found at a relative
        path.
        """
        return self._file(relative, _DRAWN_PICTURES)

    def video(self, relative: str) -> str:
        """Returns the same for a video."""
        return self._file(relative, _DRAWN_VIDEOS)

    def source_id(self, *candidates: str) -> str:
        """Returns the first of them that is free, as a file name."""
        return self._ids.give(*map(safe, candidates))

    def source_id_of_file(self, relative: str) -> str:
        """Returns its path without suffix, or with it where that is given
        already."""
        stem = pathlib.PurePosixPath(relative).with_suffix("")
        return self.source_id(str(stem), relative)

    def _file(self, relative, suffixes):
        path = pathlib.PurePosixPath(relative)
        parts = [shortened(part) for part in path.parts if part != ".."]
        if len(parts) > 1 and parts[0].casefold() in (CROPS_DIR, VOC_DIR):
            parts[0] += "_"
        if path.suffix.lower() not in suffixes:
            parts[-1] += suffixes[0]
        return self._files.give("/".join(parts))


def split_list(text: str) -> list[str]:
    """Returns the parts of a comma list; a file may have a comma in its
    name.
    """
    if os.path.exists(text):
        return [text]
    return [part.strip() for part in text.split(",") if part.strip()]


def find(
    values: Sequence[str], split: str | None, naming: Naming
) -> list[Source]:
    """Finds the sources that the parts of --input name, each file once.

    Args:
      values: image, video or TFRecord files, folders of them (not searched
        deeper), patterns (`**` searches deeper), `webcam` or `webcam:1`.
      split: of folders that hold TFRecords; None for folders of pictures.
      naming: gives the names. Of several folders each gets one of its own in
        the output.

    Raises:
      UserError: there is no such file, or none of these kinds in it.
    """
    prefixes = _prefixes([value for value in values if _has_many(value)])
    sources = {}
    for value in values:
        for found in _expand(value, split):
            key = _key(found)
            if key not in sources:
                prefix = prefixes.get(value, "")
                sources[key] = _source(found, value, prefix, naming)
    return list(sources.values())


def _has_many(value):
    return not os.path.isfile(value) and not _WEBCAM.fullmatch(value)


def _prefixes(values):
    """Part of --input -> the folder for its names, where one is needed."""
    folders = {value: _base(value).resolve() for value in values}
    if len({*folders.values()}) < 2:
        return {}
    names = UniqueNames()
    prefix_of = {
        folder: names.give(folder.name or "_") + "/"
        for folder in dict.fromkeys(folders.values())
    }
    return {value: prefix_of[folder] for value, folder in folders.items()}


def _base(value):
    """Returns the folder that the names of the files found are relative to."""
    path = pathlib.Path(value)
    if path.is_file():
        return path.parent
    while not path.is_dir() and glob.has_magic(str(path)):
        path = path.parent
    return path


def _expand(
    value: str, split: str | None
) -> Sequence[pathlib.Path | Shard | int]:
    """Returns the files that one part means, sorted, or the number of a
    camera.
    """
    path = pathlib.Path(value)
    if path.is_file():
        return [path]
    if path.is_dir() and split is not None:
        return list_shards(path, split)
    if path.is_dir():
        return _in_folder(path)
    if camera := _WEBCAM.fullmatch(value):
        return [int(camera[1] or 0)]
    if not glob.has_magic(value):
        raise UserError(f"--input={value}: no such file or folder")
    found = map(pathlib.Path, sorted(glob.glob(value, recursive=True)))
    known = [path for path in found if _is_known(path)]
    if not known:
        raise UserError(
            f"--input={value}: matches no image, video or TFRecord file"
        )
    return known


def _in_folder(folder: pathlib.Path) -> list[pathlib.Path]:
    known = [path for path in sorted(folder.iterdir()) if _is_known(path)]
    if any(map(_is_records, known)):
        raise UserError(
            f"--input={folder}: holds TFRecords; name their split by "
            "--dataset_split_name"
        )
    if not known:
        raise UserError(
            f"--input={folder}: no image in it "
            f"({_listed(images.SUFFIXES)}) and no video "
            f"({_listed(VIDEO_SUFFIXES)})"
        )
    return known


def images_of(value: str) -> list[pathlib.Path]:
    """Lists the images of a folder, not deeper, or returns the file itself.

    Raises:
      UserError: a folder holds no image.
    """
    path = pathlib.Path(value)
    if not path.is_dir():
        return [path]
    inside = [
        entry
        for entry in sorted(path.iterdir())
        if entry.suffix.lower() in images.SUFFIXES
    ]
    if not inside:
        known = _listed(images.SUFFIXES)
        raise UserError(f"{shown(path)}: no image in it ({known})")
    return inside


def read_labels(path: str | os.PathLike) -> list[str]:
    """Reads a file of class names, class 1 first.

    Raises:
      UserError: it cannot be read.
    """
    return labels.read(path)


def _listed(suffixes: Iterable[str]) -> str:
    return ", ".join(sorted(suffixes))


def _is_known(path):
    suffix = path.suffix.lower()
    has_suffix = suffix in images.SUFFIXES or suffix in VIDEO_SUFFIXES
    return (has_suffix or _is_records(path)) and path.is_file()


def _is_records(path):
    return _RECORDS.fullmatch(path.name) is not None


def _key(found):
    path = found.path if isinstance(found, Shard) else found
    return path if isinstance(path, int) else os.path.abspath(path)


def _source(found, value, prefix, naming):
    if isinstance(found, int):
        name = f"webcam_{found}"
        return Video(None, naming.video(name), naming.source_id(name), found)
    if isinstance(found, Shard):
        return found
    if _is_records(found):
        return Shard(found)
    below = found.relative_to(_base(value)).as_posix()
    relative = shown(prefix + below)
    source_id = naming.source_id_of_file(relative)
    if found.suffix.lower() in VIDEO_SUFFIXES:
        return Video(found, naming.video(relative), source_id)
    return Still(found, naming.picture(relative), source_id)


def check_unused(output_dir: str | os.PathLike, folders: Iterable[str]) -> None:
    """Refuses to mix new files with those of an earlier run.

    Args:
      output_dir: may be there, and may have other things in it.
      folders: in it, that files of unforeseen names go to.

    Raises:
      UserError: one of them is there and not empty.
    """
    for name in folders:
        folder = pathlib.Path(output_dir) / name
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(
                f"{shown(folder)}: is not empty, and old files in it could not "
                "be told from new ones; delete it or choose another "
                "--output_dir"
            )


def check_output_dir(
    output_dir: str | os.PathLike, sources: Sequence[Source]
) -> None:
    """Refuses an output folder that could draw over what it is drawn from.

    Raises:
      UserError: an input lies in it.
    """
    folder = pathlib.Path(output_dir).resolve()
    for source in sources:
        if source.path and folder in source.path.resolve().parents:
            raise UserError(
                f"--output_dir={output_dir}: holds the images themselves "
                f"({shown(source.path)}), which could be drawn over; choose "
                "another folder"
            )
