"""Replace the rows of a table that match a key of partition values, in one commit (Delta's replaceWhere).

Validates the key, builds the predicate, and maps the schema to types that all readers of Delta tables support.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, TypeAlias

import polars as pl
from deltalake import DeltaTable

from multitron_core.errors import InputError
from multitron_core.lake import delta_stream
from multitron_core.lake.contracts import CONTRACT_PROPERTY
from multitron_core.lake.tables import Tables

Key: TypeAlias = Mapping[str, date | str]
"""Partition columns and their values, dates or short strings."""

_NAME = re.compile(r"[a-z]\w*", re.ASCII)
_TEXT = re.compile(r"[\w.:+-]+", re.ASCII)  # safe inside an SQL predicate: no quotes, no spaces


@dataclass(frozen=True)
class RowsCommit:
    """What one call of `replace_rows` wrote."""

    table: str
    rows: int
    delta_version: int
    seconds: float


def replace_rows(
    tables: Tables, table: str, rows: pl.DataFrame | pl.LazyFrame, *, key: Key | None = None
) -> RowsCommit:
    """Replace the rows of a table that have the partition values `key`, in one commit.

    For tables without a contract for ranked lists, for example statistics, metrics and fronts. The first call creates
    the table, partitioned by the columns of the key. Later calls may add columns.

    Args:
        tables: Where the table is.
        table: Name of the table.
        rows: A frame; a lazy frame is streamed. Columns of the key may be missing, they are added.
        key: Partition columns and their values; None replaces the whole table.

    Raises:
        InputError: The key contradicts the rows or the table, a type is not supported by all Delta readers, or the
            table has a column with another type.
        UnavailableError: Another writer replaced the same rows in the meantime; its rows remain.
    """
    key = dict(key or {})
    condition = predicate(key)
    schema = portable_schema(rows.collect_schema(), key)
    if not tables.exists(table):
        tables.create_table(table, delta_stream.arrow_schema(schema), partition_by=list(key))
    mode = schema_mode(tables.open(table), schema, key)
    count = 0

    def frames() -> Iterator[pl.DataFrame]:
        nonlocal count
        count = 0
        for frame in keyed_frames(rows, schema, key):
            count += len(frame)
            yield frame

    start = time.monotonic()
    written = delta_stream.replace(
        lambda: tables.open(table),
        frames,
        schema,
        repeatable=True,
        predicate=condition,
        metadata={name: str(value) for name, value in key.items()},
        schema_mode=mode,
    )
    return RowsCommit(table, count, written.version(), time.monotonic() - start)


def checked_date(value: object) -> date:
    """Convert a date or its ISO text to a date.

    Raises:
        InputError: Any other value, including a datetime.
    """
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError as error:
            raise InputError("not a date", found=value, hint='use a date such as "2026-01-31"') from error
    if not isinstance(value, date) or isinstance(value, datetime):
        raise InputError("not a date", found=value, hint="use a datetime.date without a time")
    return value


def predicate(key: Key) -> str | None:
    """The SQL condition of a key; None for an empty key, which selects all rows.

    Raises:
        InputError: A value that is neither a date nor a string of letters, digits and the signs _ . : + -, or a name
            that is not a plain column name.
    """
    for name, value in key.items():
        if not isinstance(value, str):
            checked_date(value)
        if not _NAME.fullmatch(name) or (isinstance(value, str) and not _TEXT.fullmatch(value)):
            raise InputError(
                "not a key",
                where=name,
                found=value,
                hint="use a plain column name, and a value of letters, digits and the signs _ . : + -",
            )
    return " AND ".join(f"{name} = '{value}'" for name, value in key.items()) or None


def schema_mode(table: DeltaTable, schema: pl.Schema, key: Key) -> Literal["merge", "overwrite"] | None:
    """How a write may change the schema of an existing table; see `delta_stream.write_stream`.

    Returns:
        None for a table under contract, "overwrite" without a key, else "merge".

    Raises:
        InputError: The table is partitioned by other columns, or has a column of another type. Delta would cast such
            values where possible, so text that looks like a number would become a number.
    """
    partitions = table.metadata().partition_columns
    if partitions != list(key):
        raise InputError(
            "the key differs from the table's partition columns",
            where=table.table_uri,
            found=list(key),
            hint=f"use the key {partitions}",
        )
    existing = pl.scan_delta(table).collect_schema()
    under_contract = CONTRACT_PROPERTY in table.metadata().configuration
    if under_contract and existing != schema:
        raise InputError(
            "the rows violate the table's contract",
            where=table.table_uri,
            found=dict(schema),
            hint=f"expected {dict(existing)}",
        )
    if not key:
        return None if under_contract else "overwrite"
    for name, kind in schema.items():
        if name in existing and existing[name] != kind:
            raise InputError(
                f"the table has the column {name} with another type",
                where=table.table_uri,
                found=str(kind),
                hint=f"cast it to {existing[name]}",
            )
    return None if under_contract else "merge"


def keyed_frames(rows: pl.DataFrame | pl.LazyFrame, schema: pl.Schema, key: Key) -> Iterator[pl.DataFrame]:
    """The rows as frames of `schema`, with the columns of the key added; a lazy frame is streamed in its order.

    Raises:
        InputError: A row has another value in a column of the key.
    """
    for frame in rows.collect_batches(maintain_order=True) if isinstance(rows, pl.LazyFrame) else [rows]:
        for name, value in key.items():
            other = frame.filter(pl.col(name).ne_missing(value)) if name in frame.columns else frame.clear()
            if len(other):
                raise InputError(
                    "a row contradicts its key", where=name, found=other[name][0], hint=f"the key has {value}"
                )
        yield frame.with_columns(**{name: pl.lit(value) for name, value in key.items()}).select(
            pl.col(name).cast(kind) for name, kind in schema.items()
        )


def portable_schema(schema: pl.Schema, key: Key) -> pl.Schema:
    """The schema to write: columns of the key first, unsigned integers as the next wider signed type.

    UInt64 becomes Int64, the widest integer type of Delta.

    Raises:
        InputError: A type that some readers of Delta tables do not support.
    """
    wider: dict[type[pl.DataType], pl.DataType] = {
        pl.UInt8: pl.Int16(),
        pl.UInt16: pl.Int32(),
        pl.UInt32: pl.Int64(),
        pl.UInt64: pl.Int64(),
    }
    columns: dict[str, pl.DataType] = {
        name: pl.String() if isinstance(v, str) else pl.Date() for name, v in key.items()
    }
    for name, kind in schema.items():
        refused = isinstance(kind, pl.Categorical | pl.Enum | pl.Null | pl.Duration | pl.Time | pl.Object)
        if refused or (isinstance(kind, pl.Datetime) and kind.time_zone != "UTC"):
            raise InputError(
                "a column has a type that not every reader of the tables supports",
                where=name,
                found=str(kind),
                hint="cast it: times to Datetime in UTC, categories to String, nulls to their type",
            )
        if name not in columns:
            columns[name] = wider.get(type(kind), kind)
    return pl.Schema(columns)
