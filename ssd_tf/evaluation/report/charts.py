"""Charts as inline SVG: they take their colours from the page's style.

So they follow it into the dark, need no script and no other file, and stay
sharp on a phone. Every chart has a text that says what it shows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

# Of the drawing area and around it, in the units of the viewBox.
_SIDE = 200
_LEFT, _TOP, _RIGHT, _BOTTOM = 34, 8, 10, 30
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
# Points of a line that are nearer than this to the one before are left out.
_RESOLUTION = 0.4


class Line(NamedTuple):
    """A line through points in [0, 1] x [0, 1]."""

    x: Sequence[float]
    y: Sequence[float]
    style: str = "line"  # a class of the page's style
    dots: bool = False


class Mark(NamedTuple):
    """A point that matters, with what it says when pointed at."""

    x: float
    y: float
    text: str


def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    lines: Sequence[Line],
    marks: Sequence[Mark] = (),
    x_range: tuple[float, float] = (0.0, 1.0),
) -> Markup:
    """Lines on a unit square, or on another range of x.

    Args:
      title: said to who cannot see it.
      x_label, y_label: of the axes.
      lines: what is drawn.
      marks: drawn on top.
      x_range: of the x axis.
    """
    low, high = x_range

    def place(x: float, y: float) -> tuple[float, float]:
        share = (x - low) / (high - low)
        return _LEFT + _SIDE * share, _TOP + _SIDE * (1 - y)

    parts = [_grid(place, x_range), _labels(x_label, y_label)]
    parts += [_line(line, place) for line in lines]
    parts += [_mark(mark, place) for mark in marks]
    size = _LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BOTTOM
    return _svg(title, size, parts)


def _svg(title, size, parts):
    content = Markup("").join(parts)
    return Markup(
        '<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>'
    ).format(*size, title, content)


def _grid(place, x_range):
    low, high = x_range
    parts = []
    for tick in _TICKS:
        x, bottom = place(low + tick * (high - low), 0)
        left, y = place(low, tick)
        parts += [
            f'<path class="grid" d="M{x:.1f} {_TOP}V{bottom:.1f}'
            f'M{left:.1f} {y:.1f}H{_LEFT + _SIDE}"/>',
            f'<text class="tick middle" x="{x:.1f}" y="{bottom + 11:.1f}">'
            f"{low + tick * (high - low):.3g}</text>",
            f'<text class="tick end" x="{left - 4:.1f}" y="{y + 3:.1f}">'
            f"{tick:g}</text>",
        ]
    return Markup("".join(parts))


def _labels(x_label, y_label):
    middle = _LEFT + _SIDE / 2, _TOP + _SIDE / 2
    return Markup(
        '<text class="label middle" x="{:.0f}" y="{:.0f}">{}</text>'
        '<text class="label middle" transform="translate(9 {:.0f}) '
        'rotate(-90)">{}</text>'
    ).format(middle[0], _TOP + _SIDE + 25, x_label, middle[1], y_label)


def _line(line, place):
    points = [place(x, y) for x, y in zip(line.x, line.y, strict=True)]
    if points and not line.dots:
        points = _visible(np.array(points))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    drawn = f'<polyline class="{escape(line.style)}" points="{path}"/>'
    if line.dots:
        drawn += "".join(
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>'
            for x, y in points
        )
    return Markup(drawn)


def _visible(points):
    """Returns the points [n, 2] of which each can be told from the one
    before.
    """
    cells = np.rint(points / _RESOLUTION)
    moved = (np.diff(cells, axis=0) != 0).any(axis=1)
    shown = np.append(True, moved)
    shown[-1] = True
    return points[shown]


def _mark(mark, place):
    return Markup(
        '<circle class="mark" cx="{:.1f}" cy="{:.1f}" r="4">'
        "<title>{}</title></circle>"
    ).format(*place(mark.x, mark.y), mark.text)


def bar_chart(
    title: str, bars: Sequence[tuple[str, float, str]], width: int = 400
) -> Markup:
    """Returns horizontal bars from zero, one below the other.

    Args:
      title: said to who cannot see it.
      bars: name, length (negative ones are drawn as none), text behind it.
      width: units of the viewBox.
    """
    row, names, texts = 24, 92, 108
    longest = max([length for _, length, _ in bars if length > 0], default=1)
    parts = []
    for index, (name, length, text) in enumerate(bars):
        y = row * index
        extent = (width - names - texts) * max(length, 0) / longest
        parts.append(
            Markup(
                '<text class="name end" x="{}" y="{}">{}</text>'
                '<rect class="bar" x="{}" y="{}" width="{:.1f}" height="16"/>'
                '<text class="name" x="{:.1f}" y="{}">{}</text>'
            ).format(
                names - 6,
                y + 17,
                name,
                names,
                y + 5,
                extent,
                names + extent + 6,
                y + 17,
                text,
            )
        )
    return _svg(title, (width, row * len(bars) + 4), parts)
