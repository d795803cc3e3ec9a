"""Data frames as text."""

from __future__ import annotations

import polars as pl


def as_table(frame: pl.DataFrame) -> str:
    """Format all rows and columns of a frame as a text table, numbers with four decimals."""
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=240,
        float_precision=4,
        fmt_str_lengths=60,
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
    ):
        return str(frame)
