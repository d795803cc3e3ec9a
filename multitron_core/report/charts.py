"""Line charts and bar charts as inline SVG, without scripts, fonts or external files.

Every difference in colour is repeated by a marker shape, a dash pattern or a label. Colours are from Okabe and Ito,
"Color Universal Design" (2008). Preferences are coloured by viridis, whose lightness increases with pi.
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
"""Width and height in SVG user units: a panel of a grid, and a full-width chart."""

_RIGHT, _TOP, _BOTTOM = 14.0, 14.0, 46.0
_VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_TEXT_WIDTH, _TEXT_HEIGHT = 6.6, 13.0  # of one label character, in SVG user units


@dataclass(frozen=True)
class Series:
    """Points with one marker shape, optionally joined by a line.

    Args:
        name: Text in the legend.
        x, y: Coordinates; a point whose `y` is None is not drawn.
        colour: One colour for line and markers, or one colour per marker.
        marker: One of `MARKERS`, or "star".
        dash: Dash pattern of the line, one of `DASHES`.
        line: Whether the points are joined.
        hollow: One flag per point: draw its marker unfilled.
        tooltips: One text per point, shown on hover.
        labels: Texts drawn beside points, by point index, in order of priority.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: str | Sequence[str] = COLOURS[0]
    marker: str = "circle"
    dash: str = ""
    line: bool = True
    hollow: Sequence[bool] = ()
    tooltips: Sequence[str] = ()
    labels: Mapping[int, str] = field(default_factory=dict)


def viridis(share: float) -> str:
    """Viridis colour as `#rrggbb`; `share` runs from 0 (dark) to 1 (light) and is clipped."""
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
    reference_lines: Sequence[tuple[float, str]] = (),
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    size: tuple[float, float] = SMALL,
) -> Markup:
    """Draw lines and points over two linear axes.

    Args:
        series: Series in drawing order.
        title, description: Text alternative for screen readers.
        x_label, y_label: Axis labels, with units.
        reference_lines: Horizontal dashed lines as (y value, label), for example a baseline.
        x_range, y_range: Axis limits, by default the range of the points plus a margin.
        size: `SMALL` or `LARGE`.

    Returns:
        An `<svg>` element; all texts in it are escaped.
    """
    xs = [x for each in series for x, y in zip(each.x, each.y, strict=True) if y is not None]
    ys = [y for each in series for y in each.y if y is not None] + [value for value, _ in reference_lines]
    axes = _Axes(x_range or _range_with_margin(xs), y_range or _range_with_margin(ys), size)
    occupied = [axes.marker_box(x, y) for each in series for x, y in zip(each.x, each.y, strict=True) if y is not None]
    parts = [axes.frame(x_label, y_label)]
    for value, name in reference_lines:
        y = axes.y(value)
        parts.append(f'<line class="level" x1="{axes.left:.1f}" x2="{axes.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_reference_label(name, y, axes, occupied))
    for each in series:
        parts.append(_line_and_markers(each, axes))
    for each in series:
        parts.append(_labels(each, axes, occupied))
    return _svg(title, description, axes, parts)


def bars(values: Sequence[tuple[str, float]], *, title: str, description: str, x_label: str, y_label: str) -> Markup:
    """Draw vertical bars that start at zero.

    Args:
        values: One (category, value) pair per bar.
        title, description: Text alternative for screen readers.
        x_label, y_label: Axis labels, with units.

    Returns:
        An `<svg>` element; all texts in it are escaped.
    """
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
    """Sample of a series' line and marker for a legend, as an `<svg>` element."""
    colour = series.colour if isinstance(series.colour, str) else "#555"
    line = _line("M0 8 H30", colour, series.dash) if series.line else ""
    mark = _marker(series.marker, 15, 8, colour, hollow=False)
    return Markup(f'<svg viewBox="0 0 30 16" aria-hidden="true">{line}{mark}</svg>')


class _Axes:
    """Maps data values to SVG coordinates. The left margin fits the widest tick label."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float], size: tuple[float, float]) -> None:
        self.x_range, self.y_range = x_range, y_range
        self.width, self.height = size
        self.left = 36.0 + _TEXT_WIDTH * max((len(_number(value)) for value in _ticks(*y_range)), default=1)
        self.right, self.top, self.bottom = self.width - _RIGHT, _TOP, self.height - _BOTTOM

    def x(self, value: float) -> float:
        """Horizontal SVG coordinate of a value."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Vertical SVG coordinate of a value; SVG counts from the top."""
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def marker_box(self, x: float, y: float) -> _Box:
        """Bounding box of a marker at a point."""
        return (self.x(x) - 5, self.y(y) - 5, self.x(x) + 5, self.y(y) + 5)

    def frame(self, x_label: str, y_label: str, *, x_ticks: Sequence[tuple[float, str]] | None = None) -> str:
        """Grid lines, tick labels and axis labels as SVG."""
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


_Box = tuple[float, float, float, float]  # left, top, right, bottom


def _svg(title: str, description: str, axes: _Axes, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {axes.width:.0f} {axes.height:.0f}" role="img">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )


def _line_and_markers(series: Series, axes: _Axes) -> str:
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
        tooltip = f"<title>{escape(series.tooltips[i])}</title>" if series.tooltips else ""
        parts.append(f"<g>{tooltip}{_marker(series.marker, x, y, colour, hollow=hollow)}</g>")
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


def _labels(series: Series, axes: _Axes, occupied: list[_Box]) -> str:
    """Labels beside their points. A label without free space is omitted; the point keeps its tooltip."""
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
            if inside and not any(_overlap(box, other) for other in occupied):
                occupied.append(box)
                parts.append(f'<text class="label" x="{left:.1f}" y="{base:.1f}">{escape(text)}</text>')
                break
    return "".join(parts)


def _reference_label(name: str, y: float, axes: _Axes, occupied: list[_Box]) -> str:
    """Label above or below its reference line, at the end where it covers the fewest markers."""
    width = _TEXT_WIDTH * len(name)
    places = [
        (left, base) for base in (y - 5, y + 14) for left in (axes.left + 6, axes.right - width - 4)
        if base - 10 > 0 and base < axes.bottom
    ]  # fmt: skip
    boxes = [(left, base - 10, left + width, base + 3) for left, base in places]
    overlaps = [sum(_overlap(box, other) for other in occupied) for box in boxes]
    best = overlaps.index(min(overlaps))
    occupied.append(boxes[best])
    left, base = places[best]
    return f'<text class="label" x="{left:.1f}" y="{base:.1f}">{escape(name)}</text>'


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _range_with_margin(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """About `wanted` round values within the range."""
    raw = (high - low) / wanted
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if size * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    """Tick label: integers in full, other numbers with four significant digits."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"
