"""The images that the client sends: found, read, sorted out."""

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssd_tf.client.requests import RequestError
from ssd_tf.command import UserError
from ssd_tf.command.names import shown
from ssd_tf.datasets import images
from ssd_tf.detect import image_files
from ssd_tf.detect.inputs import Naming

Found = Mapping[str, np.ndarray]


class Source(NamedTuple):
    """A file that is named as an image."""

    path: pathlib.Path
    name: str  # of the drawn picture, no other one's

    @property
    def file(self) -> str:
        """What it is called in results."""
        return shown(self.path)


class Item(NamedTuple):
    """An image to ask for."""

    source: Source
    picture: images.Picture


def find(arguments: Sequence[str]) -> list[Source]:
    """The images that are named, and those of folders, not deeper, sorted.

    Raises:
      UserError: nothing is named, or a folder without images.
    """
    if not arguments:
        raise UserError("no image: name images or folders of them, see --help")
    paths = [path for each in arguments for path in _expand(pathlib.Path(each))]
    naming = Naming()
    return [
        Source(path, naming.picture(shown(path.name)))
        for path in dict.fromkeys(paths)
    ]


def _expand(path):
    if not path.is_dir():
        return [path]
    inside = [
        entry
        for entry in sorted(path.iterdir())
        if entry.suffix.lower() in images.SUFFIXES
    ]
    if not inside:
        known = ", ".join(sorted(images.SUFFIXES))
        raise UserError(f"{shown(path)}: no image in it ({known})")
    return inside


def read_batches(
    sources: Sequence[Source],
    batch_size: int,
    bad: list[str],
    max_pixels: int = image_files.MAX_MEGAPIXELS * 10**6,
) -> Iterator[list[Item]]:
    """Images as the model reads them; a line goes to `bad` for any other."""
    batch = []
    for source in sources:
        try:
            picture = image_files.read(source.path, max_pixels)
            batch.append(Item(source, picture))
        except OSError as error:
            bad.append(f"{source.file}: {error.strerror}")
        except images.UnreadableImageError as error:
            bad.append(f"{source.file}: {error}")
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def ask(
    predict: Callable[[Sequence[bytes]], Found],
    batch: Sequence[Item],
    bad: list[str],
) -> Iterator[tuple[Item, Found]]:
    """Each image with its detections; a line goes to `bad` for any other.

    A server that cannot decode an image refuses its whole batch; that is asked
    once more, image by image.

    Raises:
      RequestError: it is not for an image that there is no answer.
    """
    try:
        found = predict([item.picture.encoded for item in batch])
    except RequestError as error:
        if error.kind != "INVALID_ARGUMENT":
            raise
        if len(batch) > 1:
            yield from _ask_singly(predict, batch, bad)
        else:
            bad.append(f"{batch[0].source.file}: {error}")
    else:
        for index, item in enumerate(batch):
            yield item, {name: x[index] for name, x in found.items()}


def _ask_singly(predict, batch, bad):
    """The same for a batch that was refused.

    Where none of its images is answered, and all for one reason, that is the
    model's: by REST a broken one is told of as a bad image is.
    """
    answered, refused = False, []
    for item in batch:
        try:
            found = predict([item.picture.encoded])
        except RequestError as error:
            if error.kind != "INVALID_ARGUMENT":
                raise
            refused.append((item, error))
        else:
            answered = True
            yield item, {name: x[0] for name, x in found.items()}
    errors = {str(error): error for _, error in refused}
    if not answered and len(errors) == 1:
        raise errors.popitem()[1]
    bad += [f"{item.source.file}: {error}" for item, error in refused]
