"""Pictures from files and into files, without TensorFlow."""

import io
import pathlib
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from ssd_tf.command import files
from ssd_tf.datasets import images

MAX_MEGAPIXELS = 64
_QUALITY = 92  # of JPEGs
# Icons hold whole images, whose size their header does not tell: Pillow decodes
# them to know it. Encapsulated PostScript is a program.
_NEVER_OPENED = (  # fmt: skip
    b"\0\0\1\0",
    b"\0\0\2\0",
    b"icns",
    b"%!PS",
    b"\xc5\xd0\xd3\xc6",
)
# libjpeg writes no longer sides.
_MAX_JPEG_SIDE = 65_500


def read(
    source: pathlib.Path | bytes, max_pixels: int = MAX_MEGAPIXELS * 10**6
) -> images.Picture:
    """Returns an image as a detector takes it.

    Args:
      source: a file, of which nothing but the header is read where it is no
        image; or its bytes.
      max_pixels: more are refused before they are decoded.

    Raises:
      UnreadableImageError: not an image, not a whole one, or too large.
      OSError: the file cannot be read.
    """
    is_file = isinstance(source, pathlib.Path)
    with source.open("rb") if is_file else io.BytesIO(source) as file:
        check_size(*_stated_size(file), max_pixels)
        file.seek(0)
        return images.prepare(file.read())


def check_size(height: int, width: int, max_pixels: int) -> None:
    """Refuses what is too large.

    Raises:
      UnreadableImageError: it has more pixels.
    """
    if height * width > max_pixels:
        raise images.UnreadableImageError(
            f"{width} x {height} are more than {max_pixels / 1e6:g} million "
            "pixels, the limit (max_image_megapixels)"
        )


def _stated_size(file: BinaryIO) -> tuple[int, int]:
    if file.read(4) in _NEVER_OPENED:
        raise images.UnreadableImageError("is an icon or PostScript")
    file.seek(0)
    try:
        return images.stored_size(file)
    except images.UnreadableImageError as error:
        # Pillow's words name an object of Python's.
        if isinstance(error.__cause__, UnidentifiedImageError):
            raise images.UnreadableImageError("is no image") from error
        raise


def save(
    picture: Image.Image, path: pathlib.Path, quality: int = _QUALITY
) -> None:
    """Writes JPEG or PNG, as the name says; PNG also what is too long."""
    is_jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    if is_jpeg and max(picture.size) > _MAX_JPEG_SIDE:
        path, is_jpeg = path.with_name(f"{path.name}.png"), False
    with files.replace_file(path) as temporary:
        kind = "JPEG" if is_jpeg else "PNG"
        picture.save(temporary, kind, quality=quality)
