"""Pictures from files and into files, without TensorFlow."""

import pathlib
from typing import IO

from PIL import Image, UnidentifiedImageError

from ssd_tf import files
from ssd_tf.datasets import images

MAX_MEGAPIXELS = 64
_QUALITY = 92  # of JPEGs
# libjpeg writes no longer sides.
_MAX_JPEG_SIDE = 65_500


def read(path: pathlib.Path, max_pixels: int) -> images.Picture:
    """An image as a detector takes it.

    Args:
      path: nothing but its header is read of what is no image.
      max_pixels: more are refused before they are decoded.

    Raises:
      UnreadableImageError: not an image, not a whole one, or too large.
      OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        height, width = _stated_size(file)
        if height * width > max_pixels:
            raise images.UnreadableImageError(
                f"{width} x {height} are more than {max_pixels / 1e6:g} "
                "million pixels; see --max_image_megapixels"
            )
        file.seek(0)
        return images.prepare(file.read())


def _stated_size(file: IO[bytes]) -> tuple[int, int]:
    try:
        return images.upright_size(file)
    except images.UnreadableImageError as error:
        # Pillow's words name an object of Python's.
        if isinstance(error.__cause__, UnidentifiedImageError):
            raise images.UnreadableImageError("is no image") from error
        raise


def save(picture: Image.Image, path: pathlib.Path) -> None:
    """Writes JPEG or PNG, as the name says; PNG also what is too long."""
    is_jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    if is_jpeg and max(picture.size) > _MAX_JPEG_SIDE:
        path, is_jpeg = path.with_name(f"{path.name}.png"), False
    with files.replace_file(path) as temporary:
        kind = "JPEG" if is_jpeg else "PNG"
        picture.save(temporary, kind, quality=_QUALITY)
