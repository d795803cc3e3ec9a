"""Rows that are replaced by their key: what a key may be, and frames that carry it, in types every reader knows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, TypeAlias

import polars as pl
from deltalake import DeltaTable

from multitron_core.errors import InputError
from multitron_core.lake.contracts import CONTRACT_PROPERTY

Key: TypeAlias = Mapping[str, date | str]
"""Partition columns and their values."""

_NAME = re.compile(r"[a-z]\w*", re.ASCII)
_TEXT = re.compile(r"[\w.:+-]+", re.ASCII)  # what may stand in a predicate: no quotes, no spaces


def checked_date(value: object) -> date:
    """A date, or one from its ISO text.

    Raises:
        InputError: anything else, a datetime included.
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
    """The key as SQL; None for an empty key, which means every row.

    Raises:
        InputError: a value that is no date and no short text of safe characters.
    """
    for name, value in key.items():
        if not isinstance(value, str):
            checked_date(value)
        if not _NAME.fullmatch(name) or (isinstance(value, str) and not _TEXT.fullmatch(value)):
            raise InputError(
                "not a key",
                where=name,
                found=value,
                hint="use a plain column name, and in a value letters, digits and the signs _ . : + -",
            )
    return " AND ".join(f"{name} = '{value}'" for name, value in key.items()) or None


def schema_mode(table: DeltaTable, schema: pl.Schema, key: Key) -> Literal["merge", "overwrite"] | None:
    """How the schema of an existing table may change for the rows: not at all for a table under contract.

    Raises:
        InputError: the table cannot take the rows as they are: it is partitioned by other columns, or has a column
            with another type. Delta would cast where it can, and text that looks like a number would become one.
    """
    partitions = table.metadata().partition_columns
    if partitions != list(key):
        raise InputError(
            "the key is not the table's", where=table.table_uri, found=list(key), hint=f"use the key {partitions}"
        )
    there = pl.scan_delta(table).collect_schema()
    under_contract = CONTRACT_PROPERTY in table.metadata().configuration
    if under_contract and there != schema:
        raise InputError(
            "the rows are not what the table's contract says",
            where=table.table_uri,
            found=dict(schema),
            hint=f"expected {dict(there)}",
        )
    if not key:
        return None if under_contract else "overwrite"
    for name, kind in schema.items():
        if name in there and there[name] != kind:
            raise InputError(
                f"the table has the column {name} with another type",
                where=table.table_uri,
                found=str(kind),
                hint=f"cast it to {there[name]}",
            )
    return None if under_contract else "merge"


def keyed_frames(rows: pl.DataFrame | pl.LazyFrame, schema: pl.Schema, key: Key) -> Iterator[pl.DataFrame]:
    """The rows with the key's columns, as frames of `schema`; a lazy frame is streamed in its order.

    Raises:
        InputError: a row with another value in a column of the key.
    """
    for frame in rows.collect_batches(maintain_order=True) if isinstance(rows, pl.LazyFrame) else [rows]:
        for name, value in key.items():
            other = frame.filter(pl.col(name).ne_missing(value)) if name in frame.columns else frame.clear()
            if len(other):
                raise InputError(
                    "a row contradicts its key", where=name, found=other[name][0], hint=f"the key says {value}"
                )
        yield frame.with_columns(**{name: pl.lit(value) for name, value in key.items()}).select(
            pl.col(name).cast(kind) for name, kind in schema.items()
        )


def portable_schema(schema: pl.Schema, key: Key) -> pl.Schema:
    """The schema to write: the key's columns first, unsigned integers as the next wider signed ones.

    Raises:
        InputError: a type that some reader of the tables does not know.
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
                "a column's type is not one that every reader of the tables knows",
                where=name,
                found=str(kind),
                hint="cast it: times to Datetime in UTC, categories to String, nulls to their type",
            )
        if name not in columns:
            columns[name] = wider.get(type(kind), kind)
    return pl.Schema(columns)


@dataclass(frozen=True)
class RowsCommit:
    """What one `replace_rows` wrote."""

    table: str
    rows: int
    delta_version: int
    seconds: float
