from __future__ import annotations

import polars as pl

from orchestration.runtime.metadata import as_markdown, column_schema, counts, picture


def test_column_schema_has_types_and_descriptions() -> None:
    schema = column_schema(pl.DataFrame({"pi": ["0.50"], "rows": [3]}), {"pi": "weight on orders"})
    assert [(column.name, column.type, column.description) for column in schema.columns] == [
        ("pi", "String", "weight on orders"),
        ("rows", "Int64", None),
    ]


def test_as_markdown_rounds_floats_and_limits_rows() -> None:
    text = as_markdown(pl.DataFrame({"a|b": ["x|y", "z"], "share": [0.123456, 1.0]}), rows=1).value
    assert text.splitlines()[2] == "| x\\|y | 0.1235 |"
    assert "| z |" not in text
    assert text.endswith("1 more rows are not shown.")


def test_counts_flattens_nested_names() -> None:
    assert "| in.clicks | 3 |" in counts({"in": {"clicks": 3}, "sessions": 2}).value


def test_picture_is_embedded_with_its_alternative_text() -> None:
    assert picture(b"png", "losses").value == "![losses](data:image/png;base64,cG5n)"
