"""Pictures of detections, with Pillow.

Boxes are `[ymin, xmin, ymax, xmax]` in [0, 1]. Nothing here reads or writes a
file.
"""

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from ssd_tf.multibox.boxes import clip

Color = tuple[int, int, int]

BLACK, WHITE, NEUTRAL = (0, 0, 0), (255, 255, 255), (96, 96, 96)
# The golden ratio and e, less their whole parts: steps of them fill the circle
# of hues and the range of shades evenly, however many classes there are.
HUE_STEP, SHADE_STEP = 0.6180339887, 0.7182818285
MIN_FONT_SIZE = 6


class _Style(NamedTuple):
    """Widths in pixels that suit the size of the picture."""

    line: int
    font: int

    @classmethod
    def of(cls, image: Image.Image) -> "_Style":
        side = min(image.size)
        return cls(line=max(1, round(side / 180)), font=max(12, side // 28))


def class_color(label: int) -> Color:
    """Returns the RGB colour of a class: always the same, and its own.

    Args:
      label: any class number; 1 is red.

    Returns:
      red, green, blue in 0..255, none of them dark.
    """
    hue = (label - 1) * HUE_STEP % 1.0
    shade = (label - 1) * SHADE_STEP % 1.0
    rgb = colorsys.hsv_to_rgb(hue, 1.0 - 0.55 * shade, 1.0 - 0.3 * shade)
    return tuple(round(255 * channel) for channel in rgb)


def draw_detections(
    image: np.ndarray,
    boxes: ArrayLike,
    scores: ArrayLike,
    classes: ArrayLike,
    class_names: Sequence[str],
    min_score: float = 0.5,
    gt_boxes: ArrayLike | None = None,
) -> Image.Image:
    """Draws detections, the best ones on top, with class name and score.

    Args:
      image: RGB, uint8 [h, w, 3]; it is not changed.
      boxes: float [K, 4]; cut to the image, left out if NaN or inverted.
      scores: float [K].
      classes: integers [K], 1-based. Rows of class 0 are padding; a class
        without a name is called by its number.
      class_names: names of the classes 1, 2, ...
      min_score: detections below it are left out.
      gt_boxes: float [M, 4], annotated boxes, drawn as dashes of black and
        white under the detections.

    Returns:
      A new picture of the same size.

    Raises:
      ValueError: not an RGB image.
    """
    picture = _picture(image)
    draw = ImageDraw.Draw(picture)
    style = _Style.of(picture)
    if gt_boxes is not None:
        draw_ground_truth(picture, gt_boxes)
    scores = np.asarray(scores, np.float64)
    classes = np.asarray(classes).astype(np.int64)
    boxes = _as_boxes(boxes)
    order = np.argsort(scores, kind="stable")
    order = order[(scores[order] >= min_score) & (classes[order] > 0)]
    order = order[_is_drawable(boxes[order])]
    frames = _pixel_boxes(boxes[order], picture.size)
    colors = [class_color(label) for label in classes[order].tolist()]
    for frame, color in zip(frames, colors, strict=True):
        draw.rectangle(frame, outline=color, width=style.line)
    # Tags last, so that no line runs through a name.
    for index, frame, color in zip(order, frames, colors, strict=True):
        text = f"{_name(classes[index], class_names)} {scores[index]:.2f}"
        _draw_tag(draw, frame, text, color, style)
    return picture


def draw_ground_truth(picture: Image.Image, boxes: ArrayLike) -> None:
    """Draws boxes, float [M, 4], as dashes of black and white."""
    draw, style = ImageDraw.Draw(picture), _Style.of(picture)
    for frame in _frames(boxes, picture.size):
        _draw_dashed(draw, frame, style.line)


def draw_frames(
    picture: Image.Image, boxes: ArrayLike, color: Color, width: int = 1
) -> None:
    """Draws boxes, float [M, 4], as plain frames of so many pixels."""
    draw = ImageDraw.Draw(picture)
    for frame in _frames(boxes, picture.size):
        draw.rectangle(frame, outline=color, width=width)


def draw_tagged(
    picture: Image.Image,
    boxes: ArrayLike,
    texts: Sequence[str],
    color: Color,
) -> None:
    """Draws boxes, float [M, 4], in one colour, each with a text on it."""
    draw, style = ImageDraw.Draw(picture), _Style.of(picture)
    boxes = _as_boxes(boxes)
    drawable = np.flatnonzero(_is_drawable(boxes))
    frames = _pixel_boxes(boxes[drawable], picture.size)
    for frame in frames:
        draw.rectangle(frame, outline=color, width=style.line)
    for index, frame in zip(drawable, frames, strict=True):
        _draw_tag(draw, frame, texts[index], color, style)


def draw_caption(
    picture: Image.Image, words: Sequence[tuple[str, Color]]
) -> Image.Image:
    """Puts one line of coloured words on black under a picture.

    Args:
      picture: stays as it is.
      words: texts and their colours, one behind the other; written smaller
        where they would not fit.

    Returns:
      A higher picture of the same width.
    """
    size = max(12, picture.width // 24)
    height = round(1.6 * size)
    room = picture.width - size
    length = _font(size).getlength("  ".join(text for text, _ in words))
    font = _font(max(MIN_FONT_SIZE, int(size * min(1.0, room / length))))
    sheet = Image.new("RGB", (picture.width, picture.height + height), BLACK)
    sheet.paste(picture)
    draw, x = ImageDraw.Draw(sheet), size / 2
    for text, color in words:
        y = picture.height + (height - sum(font.getmetrics())) / 2
        draw.text((x, y), text, fill=color, font=font)
        x += font.getlength(f"{text}  ")
    return sheet


def contact_sheet(
    images: Sequence[np.ndarray | Image.Image],
    columns: int = 4,
    tile_size: int = 320,
) -> Image.Image:
    """Puts pictures of any sizes side by side on a grey background.

    Args:
      images: RGB pictures, uint8 [h, w, 3] or Pillow's; at least one.
      columns: pictures in a row; fewer if there are fewer pictures.
      tile_size: side in pixels of the square that each picture is fitted into.

    Returns:
      RGB picture, filled row by row.

    Raises:
      ValueError: no picture, no column, or no size.
    """
    if not len(images) or columns < 1 or tile_size < 1:
        raise ValueError(
            "Expected images, columns >= 1 and tile_size >= 1. Received: "
            f"{len(images)} images, columns={columns}, tile_size={tile_size}"
        )
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    gap = max(2, tile_size // 40)
    step = tile_size + gap
    size = (columns * step + gap, rows * step + gap)
    sheet = Image.new("RGB", size, NEUTRAL)
    for index, image in enumerate(images):
        tile = fit(_picture(image), tile_size)
        row, column = divmod(index, columns)
        x = gap + column * step + (tile_size - tile.width) // 2
        y = gap + row * step + (tile_size - tile.height) // 2
        sheet.paste(tile, (x, y))
    return sheet


def _picture(image: np.ndarray | Image.Image) -> Image.Image:
    """Returns a copy of the image as an RGB picture."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            "Expected an RGB image, uint8 [height, width, 3]. "
            f"Received: {image.dtype} {list(image.shape)}"
        )
    return Image.fromarray(image)


def fit(picture: Image.Image, side: int) -> Image.Image:
    """Resizes a picture until its longer side is `side` pixels."""
    scale = side / max(picture.size)
    size = [max(1, round(length * scale)) for length in picture.size]
    return picture.resize(size, Image.Resampling.LANCZOS)


def _as_boxes(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, np.float64).reshape(-1, 4)


def _is_drawable(boxes: np.ndarray) -> np.ndarray:
    """Returns bool [n]: neither inverted nor NaN (whose comparisons are
    False).
    """
    return (boxes[:, 2] >= boxes[:, 0]) & (boxes[:, 3] >= boxes[:, 1])


def _frames(boxes: ArrayLike, size: tuple[int, int]) -> list[tuple]:
    """Returns the pixel boxes of those boxes that can be drawn."""
    boxes = _as_boxes(boxes)
    return _pixel_boxes(boxes[_is_drawable(boxes)], size)


def _pixel_boxes(boxes: np.ndarray, size: tuple[int, int]) -> list[tuple]:
    """Returns first and last pixel (x, y, x, y) of each box, in the picture."""
    width, height = size
    edges = clip(boxes) * [height, width, height, width]
    first = np.minimum(np.rint(edges[:, :2]), [height - 1, width - 1])
    last = np.maximum(np.rint(edges[:, 2:]) - 1, first)
    corners = np.concatenate([first[:, ::-1], last[:, ::-1]], axis=1)
    return [tuple(corner) for corner in corners.astype(int).tolist()]


def _name(label: int, class_names: Sequence[str]) -> str:
    if label <= len(class_names):
        return class_names[label - 1]
    return f"class {label}"


def _draw_tag(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    text: str,
    color: Color,
    style: _Style,
) -> None:
    """Writes text on a filled tag above the box, or in it at the top edge."""
    width, height = draw.im.size
    font = _font(style.font)
    # A name too long for the picture is written smaller.
    room = (width - 2 * style.line) / max(font.getlength(text), 1)
    if room < 1:
        font = _font(max(MIN_FONT_SIZE, int(style.font * room)))
    ascent, descent = font.getmetrics()
    tag_width = round(font.getlength(text)) + 2 * style.line
    tag_height = ascent + descent
    x = max(0, min(box[0], width - tag_width))
    y = box[1] - tag_height
    if y < 0:
        y = max(0, min(box[1], height - tag_height))
    tag = (x, y, x + tag_width - 1, y + tag_height - 1)
    draw.rectangle(tag, fill=color)
    draw.text((x + style.line, y), text, fill=_readable_on(color), font=font)


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _readable_on(color: Color) -> Color:
    """Returns black or white, whichever has the contrast of 4.5 that WCAG 2
    asks for.

    One of them always has: the contrast is (bright + 0.05) / (dark + 0.05) in
    luminance, equal for both at sqrt(1.05 * 0.05) - 0.05 = 0.179.
    """
    value = np.array(color) / 255
    linear = np.where(
        value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4
    )
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return BLACK if luminance > 0.179 else WHITE


def _draw_dashed(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], width: int
) -> None:
    """Draws a black frame with white dashes, visible on any background."""
    x0, y0, x1, y1 = box
    draw.rectangle(box, outline=BLACK, width=width)
    dash, inset = 4 * width, width - 1
    for x in range(x0, x1 + 1, 2 * dash):
        end = min(x + dash - 1, x1)
        draw.rectangle((x, y0, end, min(y0 + inset, y1)), fill=WHITE)
        draw.rectangle((x, max(y1 - inset, y0), end, y1), fill=WHITE)
    for y in range(y0, y1 + 1, 2 * dash):
        end = min(y + dash - 1, y1)
        draw.rectangle((x0, y, min(x0 + inset, x1), end), fill=WHITE)
        draw.rectangle((max(x1 - inset, x0), y, x1, end), fill=WHITE)
