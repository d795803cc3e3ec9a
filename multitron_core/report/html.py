"""Small pieces of HTML: tables, words, numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import polars as pl

METRICS = {
    "click_recall_20": "click recall@20",
    "order_recall_20": "order recall@20",
    "order_density": "order density",
    "recall_x_density": "click recall × order density",
}
"""The metrics that are drawn, and what people call them."""


def pairs(values: Mapping[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(
        {"setting": list(values), "value": [cell(value) for value in values.values()]},
        schema={"setting": pl.String, "value": pl.String},
    )


def words(name: str) -> str:
    """A column's name as people say it."""
    return METRICS.get(name, name.replace("_20", "@20").replace("_", " "))


def more(title: str, html: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{html}</details>"


def table(frame: pl.DataFrame) -> str:
    """A frame as an HTML table that scrolls by itself where the screen is narrower; numbers to the right."""
    numeric = [dtype.is_numeric() for dtype in frame.dtypes]
    head = "".join(
        f"<th{_aligned(right)}>{escape(name)}</th>" for name, right in zip(frame.columns, numeric, strict=True)
    )
    rows = "".join(f"<tr>{_cells(row, numeric)}</tr>" for row in frame.iter_rows())
    kind = ' class="numbers"' if frame.width > 2 else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cells(row: Sequence[Any], numeric: Sequence[bool]) -> str:
    return "".join(
        f"<td{_aligned(right)}>{escape(cell(value))}</td>" for value, right in zip(row, numeric, strict=True)
    )


def _aligned(right: bool) -> str:
    return ' class="n"' if right else ""


def cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if 5e-5 <= abs(value) < 1e6 or value == 0 else f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {cell(each)}" for name, each in value.items())
    return str(value)
