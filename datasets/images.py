"""Encoded images: what TensorFlow decodes as upright 8-bit RGB, or made so.

Good JPEG and PNG files keep their bytes. Everything else that Pillow opens is
decoded once and encoded again: JPEG from lossy formats, PNG from the others.
Nothing here knows of boxes or of TensorFlow.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
)
# MPO is what cameras write: a JPEG with further pictures behind it.
_JPEG_FORMATS = frozenset({"JPEG", "MPO"})
_LOSSY_FORMATS = _JPEG_FORMATS | {"WEBP"}
# Other modes: palettes, alpha, CMYK and 16 bits are decoded differently by
# TensorFlow's kernels, or not at all.
_KEPT_MODES = frozenset({"RGB", "L"})
_EXIF_ORIENTATION = 0x0112
_JPEG_QUALITY = 95


class UnreadableImageError(Exception):
    """The bytes are not a whole image."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image as it goes into a record.

    Attributes:
      encoded: JPEG or PNG bytes.
      height, width: size of the decoded image, pixels.
      notes: (kind, detail) of what was changed.
    """

    encoded: bytes
    height: int
    width: int
    notes: tuple[tuple[str, str], ...] = ()


def index(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Returns the images of a folder by their stems; each list sorted by
    name.
    """
    found = {}
    for path in sorted(folder.glob("*")):
        if path.suffix.lower() in SUFFIXES:
            found.setdefault(path.stem, []).append(path)
    return found


def find(
    indexed: dict[str, list[pathlib.Path]], stem: str, stated: str
) -> pathlib.Path:
    """Returns the image that belongs to an annotation file.

    Files are paired by their stems. The file name that an annotation states
    is often stale after a renaming, so it only chooses between several images
    of that stem, or is the last hope.

    Args:
      indexed: from `index`.
      stem: of the annotation file.
      stated: image file name that the annotation states, or "".

    Raises:
      FileNotFoundError: no such image.
    """
    stated_stem = pathlib.PurePath(stated).stem
    candidates = indexed.get(stem) or indexed.get(stated_stem)
    if not candidates:
        raise FileNotFoundError(f"no image {stem}.* and none named {stated!r}")
    # Sorting is stable: the stated one first, else the first by name.
    return sorted(candidates, key=lambda path: path.name != stated)[0]


def prepare(
    data: bytes, stated_size: tuple[int | None, int | None] = (None, None)
) -> Picture:
    """Decodes a whole image and makes it upright 8-bit RGB or grey.

    Args:
      data: the file's bytes.
      stated_size: (height, width) on which the annotator says to have drawn,
        if known. Where it is the size of the stored pixels but not that of
        the upright picture, the annotator's tool ignored the EXIF
        orientation, and so does this function: the boxes fit those pixels.

    Raises:
      UnreadableImageError: Pillow cannot decode all of it.
    """
    image = _decode(data)
    orientation = _orientation(image)
    upright = ImageOps.exif_transpose(image) if orientation > 1 else image
    stored_fits = stated_size == image.size[::-1] != upright.size[::-1]
    notes = []
    if orientation > 1:
        done = "boxes fit the stored pixels" if stored_fits else "applied"
        notes.append(("exif_orientation", f"{orientation}: {done}"))
    if stored_fits or orientation <= 1:
        encoded, note = _as_stored(data, image)
    else:
        encoded, note = _encode(upright, image.format)
    if note:
        notes.append(("re_encoded", note))
    width, height = image.size if stored_fits else upright.size
    return Picture(encoded, height, width, tuple(notes))


def upright_size(path: str | os.PathLike) -> tuple[int, int]:
    """Returns (height, width) of the upright image.

    Only the header is read, but all of a PNG without an EXIF block there: one
    may come behind the pixels.

    Raises:
      UnreadableImageError: there is no image header.
    """
    with _opened(path) as image:
        width, height = image.size
        # Orientations 5 to 8 turn the picture by 90 degrees.
        turned = _orientation(image) >= 5
    return (width, height) if turned else (height, width)


def stored_size(file: BinaryIO) -> tuple[int, int]:
    """Returns (height, width) of the pixels as they lie in the file.

    Only the header is read; of a GIF, whose screen may be smaller, also that
    of the first frame.

    Raises:
      UnreadableImageError: there is no image header.
    """
    with _opened(file) as image:
        width, height = image.size
    return height, width


@contextlib.contextmanager
def _opened(file) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as image:
            yield image
    except Exception as error:  # as in _decode
        raise UnreadableImageError(str(error)) from error


def _decode(data):
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error,
    # DecompressionBombError...: on bytes of anyone's making, anything.
    except Exception as error:
        raise UnreadableImageError(
            f"{type(error).__name__}: {error}"
        ) from error
    if image.mode.startswith("F"):
        raise UnreadableImageError("float pixels have no defined range")
    return image


def _orientation(image):
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing of the pixels
        return 1
    return value if value in range(1, 9) else 1


def _as_stored(data, image):
    kept = image.format in _JPEG_FORMATS | {"PNG"}
    if kept and image.mode in _KEPT_MODES:
        return data, ""
    return _encode(image, image.format)


def _encode(image, source_format):
    if image.mode.startswith("I"):  # 16 bits: the high byte, as TensorFlow
        high_byte = np.clip(np.asarray(image) // 256, 0, 255)
        rgb = Image.fromarray(high_byte.astype(np.uint8)).convert("RGB")
    else:
        rgb = image.convert("RGB")
    file = io.BytesIO()
    lossy = source_format in _LOSSY_FORMATS
    if lossy:
        rgb.save(file, "JPEG", quality=_JPEG_QUALITY)
    else:
        rgb.save(file, "PNG")
    target = "JPEG" if lossy else "PNG"
    return file.getvalue(), f"{image.mode} {source_format} to RGB {target}"


def suffix(data: bytes) -> str:
    """Returns file name suffix that says the format of encoded image bytes."""
    with Image.open(io.BytesIO(data)) as image:
        return (
            ".jpg"
            if image.format in _JPEG_FORMATS
            else (f".{image.format.lower()}")
        )
