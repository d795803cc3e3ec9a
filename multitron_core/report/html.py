"""Jinja environment of the report: templates, filters, metric labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from multitron_core.report.charts import swatch

METRIC_LABELS = {
    "click_recall_20": "click recall@20",
    "order_recall_20": "order recall@20",
    "order_density": "order density",
    "recall_x_density": "click recall × order density",
}
"""Metrics with a chart, by column name."""


def render(template: str, **values: Any) -> Markup:
    """Render a template of `templates/`.

    Args:
        template: File name.
        values: Template variables. Text is escaped unless it is `Markup`.

    Returns:
        HTML.

    Raises:
        jinja2.UndefinedError: The template uses a variable that `values` lacks.
    """
    return Markup(_ENVIRONMENT.get_template(template).render(values))


def metric_label(name: str) -> str:
    """Display name of a metric's column, for example "click recall@20" for `click_recall_20`."""
    return METRIC_LABELS.get(name, name.replace("_20", "@20").replace("mrr", "MRR").replace("_", " "))


def format_cell(value: Any) -> str:
    """Text of a table cell: four decimals, thousands separators, "–" for None, lists and mappings with commas."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if 5e-5 <= abs(value) < 1e6 or value == 0 else f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(format_cell, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {format_cell(each)}" for name, each in value.items())
    return str(value)


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"metric_label": metric_label, "format_cell": format_cell, "number": format, "swatch": swatch}
