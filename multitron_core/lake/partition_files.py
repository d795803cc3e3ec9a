"""Live files and sizes of a table's partitions, read from the Delta log only."""

from __future__ import annotations

import polars as pl
from deltalake import DeltaTable

_COLUMNS = {
    "path": pl.String,
    "run_date": pl.Date,
    "pi": pl.String,
    "rows": pl.Int64,
    "bytes": pl.Int64,
    "model_version": pl.String,
}


def partition_files(table: DeltaTable) -> pl.DataFrame:
    """One row per live file of a table that is partitioned by (run_date, pi).

    Returns:
        Columns `path`, `run_date`, `pi`, `rows`, `bytes`, `model_version`.
    """
    files = pl.DataFrame(table.get_add_actions(flatten=True))
    if files.is_empty():
        return pl.DataFrame(schema=_COLUMNS)
    return files.select(
        path="path",
        run_date="partition.run_date",
        pi="partition.pi",
        rows="num_records",
        bytes="size_bytes",
        model_version="max.model_version",
    ).cast(_COLUMNS)  # type: ignore[arg-type]


def partitions(table: DeltaTable) -> pl.DataFrame:
    """One row per partition, newest first: `run_date`, `pi`, `rows`, `files`, `bytes`, `model_version`."""
    return (
        partition_files(table)
        .group_by("run_date", "pi")
        .agg(
            pl.col("rows").sum(),
            pl.len().cast(pl.Int64).alias("files"),
            pl.col("bytes").sum(),
            pl.col("model_version").max(),
        )
        .sort(["run_date", "pi"], descending=[True, False])
    )
