"""The built-in data set: coloured shapes on cluttered backgrounds.

It is made by Pillow and NumPy alone, as a real tree of JPEG and VOC files, so
that every command can be tried and tested without a download. Image i of a
split depends on (seed, split, i) and on nothing else: the files are the same,
byte for byte, in whatever process they are made.
"""

import colorsys
import dataclasses
import io
import json
import math
import pathlib

import numpy as np
from PIL import Image, ImageDraw

from ssd_tf import command
from ssd_tf.command import UserError, files
from ssd_tf.datasets.annotation import Annotation
from ssd_tf.datasets.formats import voc

# Class -> hue in [0, 1) around which its colours lie. Colour helps a small
# net to tell classes apart within minutes; outlines have to be found anyway.
HUES = {"circle": 0.0, "square": 0.25, "star": 0.5, "triangle": 0.75}
_HUE_SPREAD = 0.08
_MAX_OBJECTS = 5
_EMPTY_SHARE = 0.06  # of the images show no object
_HIDING_SHARE = 0.08  # of the objects are put onto another one
_VISIBLE = 0.75  # share of an object that has to be seen...
_BARELY_VISIBLE = 0.2  # ...or this, of one that another is put onto
_DIFFICULT_BELOW = 0.5  # visible share
_RADIUS = (0.13, 0.26)  # of the shorter side: a whole box is > 15% of it
_SUPERSAMPLING = 2  # pictures are drawn larger, for smooth outlines
_SETTINGS = "shapes.json"


def write_dataset(
    output_dir: str | pathlib.Path,
    num_train: int = 1200,
    num_test: int = 300,
    image_size: tuple[int, int] = (160, 256),
    seed: int = 0,
) -> pathlib.Path:
    """Writes the data set as a VOC tree with the splits `train` and `test`.

    The tree appears as a whole or not at all. One that is there already with
    the same settings is left as it is.

    Args:
      output_dir: the tree's folder.
      num_train, num_test: images per split.
      image_size: least and largest height and width, pixels.
      seed: chooses the pictures.

    Returns:
      `output_dir`.

    Raises:
      UserError: the folder holds something else.
    """
    output_dir = pathlib.Path(output_dir)
    settings = {
        "format_version": 1,
        "train": num_train,
        "test": num_test,
        "image_size": list(image_size),
        "seed": seed,
    }
    if output_dir.is_file() or any(output_dir.glob("*")):
        if _read_settings(output_dir) != settings:
            raise UserError(
                f"{output_dir}: holds something other than these shapes; "
                "remove it or name another folder"
            )
        return output_dir
    with (
        files.new_directory(output_dir) as tree,
        command.progress("shapes", num_train + num_test) as advance,
    ):
        for number, split in enumerate(("train", "test")):
            pictures = _pictures(split, settings, [seed, number], advance)
            voc.write(tree, split, pictures)
        files.write_json(tree / _SETTINGS, settings)
    return output_dir


def _read_settings(output_dir):
    try:
        return json.loads((output_dir / _SETTINGS).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _pictures(split, settings, entropy, advance):
    low, high = settings["image_size"]
    for index in range(settings[split]):
        rng = np.random.default_rng([*entropy, index])
        height, width = rng.integers(low, high + 1, 2).tolist()
        yield draw(rng, height, width, f"{split}_{index:05d}")
        advance()


@dataclasses.dataclass(frozen=True)
class _Shape:
    name: str
    polygon: np.ndarray  # [n, 2] x, y in drawn (supersampled) pixels
    color: tuple[int, int, int]

    @property
    def area(self) -> float:
        """Area of the whole polygon (shoelace formula), drawn pixels."""
        x, y = self.polygon.T
        return abs(np.sum(x * np.roll(y, 1) - y * np.roll(x, 1))) / 2

    @property
    def points(self) -> list[tuple[float, float]]:
        return list(map(tuple, self.polygon.tolist()))


def draw(
    rng: np.random.Generator, height: int, width: int, source_id: str
) -> Annotation:
    """Draws one picture.

    Args:
      rng: the source of all choices.
      height, width: size of the picture, pixels.
      source_id: its name.

    Returns:
      The picture as JPEG bytes with boxes around what is visible of each
      shape; mostly hidden ones are difficult, those that leave the picture
      truncated.
    """
    shapes, owner, seen = _arrange(rng, height, width)
    canvas = _background(rng, height, width)
    brush = ImageDraw.Draw(canvas)
    for shape in shapes:
        edge = tuple(int(0.6 * channel) for channel in shape.color)
        brush.polygon(shape.points, shape.color, edge)
    owners = np.asarray(owner)
    boxes_px = np.array(
        [_bounds(owners == number + 1) for number in range(len(shapes))]
    ).reshape(-1, 4)
    return Annotation(
        source_id=source_id,
        origin=source_id,
        height=height,
        width=width,
        boxes=boxes_px / ([height, width] * 2),
        names=tuple(shape.name for shape in shapes),
        difficult=seen < _DIFFICULT_BELOW,
        truncated=[_leaves(shape, owner.size) for shape in shapes],
        image_bytes=_photograph(rng, canvas, height, width),
    )


def _arrange(rng, height, width):
    """Places shapes, later ones on top of earlier ones.

    Returns:
      The shapes; an image that says which of them (from 1) owns a pixel, 0
      for none; the share of each that is seen.
    """
    size = (width * _SUPERSAMPLING, height * _SUPERSAMPLING)
    shapes, owner, seen = [], Image.new("L", size), np.zeros(0)
    count = rng.integers(1, _MAX_OBJECTS + 1)
    if rng.random() < _EMPTY_SHARE:
        count = 0
    for _ in range(10 * count):
        if len(shapes) == count:
            break
        hiding = bool(shapes) and rng.random() < _HIDING_SHARE
        shape = _random_shape(rng, size, shapes[-1] if hiding else None)
        candidate = owner.copy()
        ImageDraw.Draw(candidate).polygon(shape.points, len(shapes) + 1)
        shares = _visible_shares([*shapes, shape], candidate)
        needed = np.full(len(shapes) + 1, _VISIBLE)
        if hiding:
            needed[-2] = _BARELY_VISIBLE
        # What is hidden already must not be hidden further.
        needed[:-1] = np.minimum(needed[:-1], seen)
        if (shares >= needed).all():
            shapes, owner, seen = [*shapes, shape], candidate, shares
    return shapes, owner, seen


def _random_shape(rng, size, onto):
    name = str(rng.choice(list(HUES)))
    radius = rng.uniform(*_RADIUS) * min(size)
    center = rng.uniform(0.12, 0.88, 2) * size
    if onto is not None:
        offset = rng.uniform(0, 2 * math.pi)
        center = onto.polygon.mean(axis=0) + (
            0.6 * radius * np.array([math.cos(offset), math.sin(offset)])
        )
    angle = rng.uniform(0, 2 * math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    turned = _outline(name) @ np.array([[cos, sin], [-sin, cos]])
    stretch = rng.uniform(0.85, 1.15)
    polygon = turned * [radius * stretch, radius / stretch] + center
    hue = (HUES[name] + rng.uniform(-_HUE_SPREAD, _HUE_SPREAD)) % 1
    color = colorsys.hsv_to_rgb(
        hue, rng.uniform(0.6, 1.0), rng.uniform(0.55, 1.0)
    )
    # Whole pixels: the last bits of sine and cosine differ between machines.
    return _Shape(
        name, np.round(polygon), tuple(round(255 * value) for value in color)
    )


def _outline(name):
    """Returns corners of the shape in the unit circle, [n, 2]."""
    corners = {"circle": 32, "square": 4, "star": 10, "triangle": 3}[name]
    angles = np.arange(corners) * (2 * math.pi / corners)
    radii = np.ones(corners)
    if name == "star":
        radii[1::2] = 0.45
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]


def _visible_shares(shapes, owner):
    pixels = owner.histogram()[1 : len(shapes) + 1]
    return pixels / np.array([shape.area for shape in shapes])


def _bounds(mask):
    """Returns ymin, xmin, ymax, xmax of the true pixels, in final pixels."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    low = [rows[0] // _SUPERSAMPLING, columns[0] // _SUPERSAMPLING]
    high = [rows[-1] // _SUPERSAMPLING, columns[-1] // _SUPERSAMPLING]
    return [low[0], low[1], high[0] + 1, high[1] + 1]


def _leaves(shape, drawn_size):
    low, high = shape.polygon.min(axis=0), shape.polygon.max(axis=0)
    return bool((low < 0).any() or (high >= drawn_size).any())


def _background(rng, height, width):
    """Returns muted colours that change slowly, under thin lines and pale
    discs."""
    size = (width * _SUPERSAMPLING, height * _SUPERSAMPLING)
    base = rng.integers(50, 206) + rng.integers(-20, 21, 3)
    patches = base + rng.integers(-35, 36, (*rng.integers(3, 9, 2), 1))
    small = Image.fromarray(np.clip(patches, 0, 255).astype(np.uint8))
    canvas = small.resize(size, Image.Resampling.BICUBIC)
    brush = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(3, 10)):
        x, y, far_x, far_y = (rng.uniform(0, 1, 4) * (size * 2)).tolist()
        shade = tuple(np.clip(base + rng.integers(-60, 61), 0, 255).tolist())
        if rng.random() < 0.6:
            brush.line((x, y, far_x, far_y), shade, int(rng.integers(1, 7)))
        else:
            radius = rng.uniform(0.01, 0.06) * min(size)
            brush.ellipse(
                (x - radius, y - radius, x + radius, y + radius), shade
            )
    return canvas


def _photograph(rng, canvas, height, width):
    """Returns the drawing at its final size with a camera's noise, as JPEG."""
    picture = np.asarray(canvas.reduce(_SUPERSAMPLING))
    strength = int(rng.integers(4, 21))
    noise = rng.integers(-strength, strength + 1, picture.shape, np.int16)
    noisy = np.clip(picture + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=90)
    return file.getvalue()
