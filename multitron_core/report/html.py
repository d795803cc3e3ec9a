"""The Jinja templates of the report and their filters: metric names, table cells, numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from multitron_core.report.charts import swatch

METRICS = {
    "click_recall_20": "click recall@20",
    "order_recall_20": "order recall@20",
    "order_density": "order density",
    "recall_x_density": "click recall × order density",
}
"""The metrics that are drawn, and what people call them."""


def render(template: str, **values: Any) -> Markup:
    """A template of `templates/` as HTML; text in `values` is escaped, a missing value is an error."""
    return Markup(_ENVIRONMENT.get_template(template).render(values))


def words(name: str) -> str:
    """A column's name as people say it."""
    return METRICS.get(name, name.replace("_20", "@20").replace("_", " "))


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


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"words": words, "cell": cell, "number": format, "swatch": swatch}
