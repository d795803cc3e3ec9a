"""`as_table`: a complete frame as text."""

from __future__ import annotations

import polars as pl

from multitron_core.utils.text_table import as_table


def test_as_table_shows_all_rows_and_columns_without_types() -> None:
    frame = pl.DataFrame({f"column_{number}": [number / 3] * 30 for number in range(12)})
    text = as_table(frame)
    assert text.count("3.6667") == 30
    assert "column_0" in text
    assert "…" not in text
    assert "f64" not in text
    assert "shape" not in text
