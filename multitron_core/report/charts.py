"""Charts as inline SVG: sharp at any width, readable on a phone, without a script, a font or a file beside them.

What a colour says, a marker's shape, a dash or a label says too. Colours are those of Okabe and Ito ("Color Universal
Design", 2008); a preference is coloured by viridis, whose lightness rises with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("", "6 3", "2 3", "8 3 2 3")
MARKERS = ("circle", "square", "triangle", "diamond", "down", "cross")

SMALL, LARGE = (400.0, 300.0), (520.0, 350.0)
"""Width and height in units of about a pixel: a panel among others, a picture of its own."""

_RIGHT, _TOP, _BOTTOM = 14.0, 14.0, 46.0
_VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_TEXT_WIDTH, _TEXT_HEIGHT = 6.6, 13.0  # of a character of a label, in units of the picture


@dataclass(frozen=True)
class Series:
    """Points of one kind, joined by a line.

    Args:
        name: what the legend says.
        x, y: the points; a None in `y` leaves its point out.
        colour: of line and markers, or of each marker.
        marker: one of `MARKERS`, or "star".
        dash: of the line, one of `DASHES`.
        line: whether points are joined.
        hollow: points drawn with an empty marker.
        hints: a text a point, shown where a pointer rests on it.
        labels: texts beside points, by index, in the order in which they may take their place.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: str | Sequence[str] = COLOURS[0]
    marker: str = "circle"
    dash: str = ""
    line: bool = True
    hollow: Sequence[bool] = ()
    hints: Sequence[str] = ()
    labels: Mapping[int, str] = field(default_factory=dict)


def viridis(share: float) -> str:
    """A colour of viridis, dark at 0 and light at 1."""
    place = min(max(share, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    low = min(int(place), len(_VIRIDIS) - 2)
    mixed = (round(a + (b - a) * (place - low)) for a, b in zip(_VIRIDIS[low], _VIRIDIS[low + 1], strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def chart(
    series: Sequence[Series],
    *,
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    levels: Sequence[tuple[float, str]] = (),
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    size: tuple[float, float] = SMALL,
) -> Markup:
    """Lines and points over two axes.

    Args:
        series: drawn in this order.
        title, description: for who does not see the picture.
        x_label, y_label: of the axes, with units.
        levels: horizontal dashed lines with a name, such as a baseline.
        x_range, y_range: of the axes; by default what the points need.
        size: `SMALL` or `LARGE`.

    Returns:
        An `<svg>` element.
    """
    xs = [x for each in series for x, y in zip(each.x, each.y, strict=True) if y is not None]
    ys = [y for each in series for y in each.y if y is not None] + [value for value, _ in levels]
    axes = _Axes(x_range or _padded(xs), y_range or _padded(ys), size)
    taken = [axes.box_of(x, y) for each in series for x, y in zip(each.x, each.y, strict=True) if y is not None]
    parts = [axes.frame(x_label, y_label)]
    for value, name in levels:
        y = axes.y(value)
        parts.append(f'<line class="level" x1="{axes.left:.1f}" x2="{axes.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_level_name(name, y, axes, taken))
    for each in series:
        parts.append(_draw(each, axes))
    for each in series:
        parts.append(_labels(each, axes, taken))
    return _svg(title, description, axes, parts)


def bars(values: Sequence[tuple[str, float]], *, title: str, description: str, x_label: str, y_label: str) -> Markup:
    """Bars from zero, a name each; an `<svg>` element."""
    axes = _Axes((0.0, float(len(values))), (0.0, 1.08 * max(value for _, value in values)), SMALL)
    parts = [axes.frame(x_label, y_label, x_ticks=[(i + 0.5, name) for i, (name, _) in enumerate(values)])]
    for i, (name, value) in enumerate(values):
        left, right, top = axes.x(i + 0.12), axes.x(i + 0.88), axes.y(value)
        parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{axes.y(0.0) - top:.1f}" '
            f'fill="{COLOURS[0]}"><title>{escape(f"{name}: {_number(value)}")}</title></rect>'
        )
    return _svg(title, description, axes, parts)


def swatch(series: Series) -> Markup:
    """The line and marker of a series, for a legend: an `<svg>` element."""
    colour = series.colour if isinstance(series.colour, str) else "#555"
    line = _line("M0 8 H30", colour, series.dash) if series.line else ""
    mark = _marker(series.marker, 15, 8, colour, hollow=False)
    return Markup(f'<svg viewBox="0 0 30 16" aria-hidden="true">{line}{mark}</svg>')


class _Axes:
    """From values to places in the picture; the left margin is as wide as the numbers need."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float], size: tuple[float, float]) -> None:
        self.x_range, self.y_range = x_range, y_range
        self.width, self.height = size
        self.left = 36.0 + _TEXT_WIDTH * max((len(_number(value)) for value in _ticks(*y_range)), default=1)
        self.right, self.top, self.bottom = self.width - _RIGHT, _TOP, self.height - _BOTTOM

    def x(self, value: float) -> float:
        """From the left, in units of the picture."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """From the top."""
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def box_of(self, x: float, y: float) -> _Box:
        """What a marker covers."""
        return (self.x(x) - 5, self.y(y) - 5, self.x(x) + 5, self.y(y) + 5)

    def frame(self, x_label: str, y_label: str, *, x_ticks: Sequence[tuple[float, str]] | None = None) -> str:
        """Grid, ticks and names of both axes."""
        parts = []
        for value in _ticks(*self.y_range):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{self.left:.1f}" x2="{self.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{self.left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>')
        if x_ticks is None:
            x_ticks = [(value, _number(value)) for value in _ticks(*self.x_range)]
            for value, _ in x_ticks:
                x = self.x(value)
                parts.append(
                    f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{self.top:.1f}" y2="{self.bottom:.1f}"/>'
                )
        for value, name in x_ticks:
            x, y = self.x(value), self.bottom + 16
            parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(name)}</text>')
        middle = (self.top + self.bottom) / 2
        parts.append(
            f'<text class="axis" x="{(self.left + self.right) / 2:.1f}" y="{self.height - 8:.1f}" '
            f'text-anchor="middle">{escape(x_label)}</text>'
            f'<text class="axis" transform="translate(13 {middle:.1f}) rotate(-90)" '
            f'text-anchor="middle">{escape(y_label)}</text>'
        )
        return "".join(parts)


_Box = tuple[float, float, float, float]


def _svg(title: str, description: str, axes: _Axes, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {axes.width:.0f} {axes.height:.0f}" role="img">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )


def _draw(series: Series, axes: _Axes) -> str:
    points = [
        (i, axes.x(x), axes.y(y)) for i, (x, y) in enumerate(zip(series.x, series.y, strict=True)) if y is not None
    ]
    parts = []
    if series.line and len(points) > 1:
        colour = series.colour if isinstance(series.colour, str) else "#767676"
        path = "M" + " L".join(f"{x:.1f} {y:.1f}" for _, x, y in points)
        parts.append(_line(path, colour, series.dash))
    for i, x, y in points:
        colour = series.colour if isinstance(series.colour, str) else series.colour[i]
        hollow = bool(series.hollow) and bool(series.hollow[i])
        hint = f"<title>{escape(series.hints[i])}</title>" if series.hints else ""
        parts.append(f"<g>{hint}{_marker(series.marker, x, y, colour, hollow=hollow)}</g>")
    return "".join(parts)


def _line(path: str, colour: str, dash: str) -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dashed}/>'


def _marker(shape: str, x: float, y: float, colour: str, *, hollow: bool) -> str:
    look = f'fill="{"#fff" if hollow else colour}" stroke="{colour}" stroke-width="1.4"'
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" {look}/>'
    if shape == "cross":
        return f'<path d="M{x - 4:.1f} {y - 4:.1f} l8 8 m0 -8 l-8 8" stroke="{colour}" stroke-width="2.2" fill="none"/>'
    if shape == "star":
        corners = [(9.5 if i % 2 == 0 else 4.2, math.pi * i / 5) for i in range(10)]
        points = " ".join(f"{x + r * math.sin(a):.1f},{y - r * math.cos(a):.1f}" for r, a in corners)
        return f'<polygon points="{points}" fill="#fff" stroke="#000" stroke-width="1.8"/>'
    outlines = {
        "square": ((-3.8, -3.8), (3.8, -3.8), (3.8, 3.8), (-3.8, 3.8)),
        "diamond": ((0.0, -5.2), (5.2, 0.0), (0.0, 5.2), (-5.2, 0.0)),
        "triangle": ((0.0, -5.0), (4.8, 3.6), (-4.8, 3.6)),
        "down": ((0.0, 5.0), (4.8, -3.6), (-4.8, -3.6)),
    }
    return f'<polygon points="{" ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in outlines[shape])}" {look}/>'


def _labels(series: Series, axes: _Axes, taken: list[_Box]) -> str:
    """Texts beside their points where there is room; one that has none is left out, its point still has its hint."""
    parts = []
    for i, text in series.labels.items():
        value = series.y[i]
        if value is None:
            continue
        x, y, width = axes.x(series.x[i]), axes.y(value), _TEXT_WIDTH * len(text)
        for left, base in (
            (x + 8, y - 6),
            (x + 9, y + 4),
            (x - 9 - width, y + 4),
            (x + 8, y + 15),
            (x - 8 - width, y - 6),
            (x - 8 - width, y + 15),
        ):
            box = (left, base - _TEXT_HEIGHT + 3, left + width, base + 2)
            inside = box[0] >= axes.left and box[2] <= axes.width - 2 and box[1] >= 0 and box[3] <= axes.bottom
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                parts.append(f'<text class="label" x="{left:.1f}" y="{base:.1f}">{escape(text)}</text>')
                break
    return "".join(parts)


def _level_name(name: str, y: float, axes: _Axes, taken: list[_Box]) -> str:
    """The name of a level above or below its line, left or right, where the fewest points are covered."""
    width = _TEXT_WIDTH * len(name)
    places = [
        (left, base) for base in (y - 5, y + 14) for left in (axes.left + 6, axes.right - width - 4)
        if base - 10 > 0 and base < axes.bottom
    ]  # fmt: skip
    boxes = [(left, base - 10, left + width, base + 3) for left, base in places]
    crowd = [sum(_overlap(box, other) for other in taken) for box in boxes]
    best = crowd.index(min(crowd))
    taken.append(boxes[best])
    left, base = places[best]
    return f'<text class="label" x="{left:.1f}" y="{base:.1f}">{escape(name)}</text>'


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values inside the range, about `wanted` of them."""
    raw = (high - low) / wanted
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if size * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    """A number as short as it is exact enough to read."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"
