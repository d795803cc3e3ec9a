"""Dagster metadata values: column schemas, tables, pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl


def column_schema(frame: pl.DataFrame | pl.Schema, descriptions: Mapping[str, str] | None = None) -> dg.TableSchema:
    """The columns of a table, with descriptions for the names that have one."""
    schema = frame.schema if isinstance(frame, pl.DataFrame) else frame
    return dg.TableSchema(
        [dg.TableColumn(name, str(dtype), description=(descriptions or {}).get(name)) for name, dtype in schema.items()]
    )


def as_markdown(frame: pl.DataFrame, rows: int = 50) -> dg.MarkdownMetadataValue:
    """A small frame as a Markdown table: floats with four decimals, at most `rows` rows."""
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * frame.width]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in frame.head(rows).iter_rows()]
    if frame.height > rows:
        lines.append(f"\n{frame.height - rows} more rows are not shown.")
    return dg.MetadataValue.md("\n".join(lines))


def picture(png: bytes, alternative: str) -> dg.MarkdownMetadataValue:
    """A PNG embedded in the metadata, so that the UI needs no access to the file; `alternative` is its alt text."""
    return dg.MetadataValue.md(f"![{alternative}](data:image/png;base64,{base64.b64encode(png).decode()})")


def counts(values: Mapping[str, Any]) -> dg.MarkdownMetadataValue:
    """Names and numbers as a Markdown table; nested mappings get dotted names."""
    flat = list(_flat(values))
    return as_markdown(
        pl.DataFrame({"name": [name for name, _ in flat], "count": [str(value) for _, value in flat]}), rows=200
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        pairs += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return pairs


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|")
