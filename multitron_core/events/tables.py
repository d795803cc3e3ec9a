"""The Delta tables of the event log: their schemas, and how they are created, read and written.

All three are partitioned by `day`, and a commit replaces whole days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Protocol

import polars as pl
from deltalake import DeltaTable

from multitron_core.errors import InputError
from multitron_core.events.formats.format import TIME
from multitron_core.events.read import REJECT_SCHEMA
from multitron_core.lake import delta_stream

EVENT_SCHEMA = pl.Schema(
    [
        ("session_id", pl.String),
        ("item_id", pl.Int64),  # or String, as the source has them
        ("ts", TIME),
        ("event_type", pl.String),
        ("file", pl.String),
        ("line", pl.Int64),
        ("source_day", pl.Date),
        ("day", pl.Date),
    ]
)
REJECTS_SCHEMA = pl.Schema([*REJECT_SCHEMA.items(), ("day", pl.Date)])
INGESTION_SCHEMA = pl.Schema(
    {"day": pl.Date, "source_day": pl.Date, "what": pl.String, "reason": pl.String, "count": pl.Int64}
)


class Tables(Protocol):
    """What ingestion needs of a `multitron_core.lake.Lake`."""

    @property
    def storage_options(self) -> dict[str, str] | None: ...

    def uri(self, table: str) -> str: ...


def create_event_log(lake: Tables, item_type: pl.DataType) -> None:
    """Create the tables that are not there.

    Args:
        lake: where the tables are.
        item_type: `pl.Int64()` or `pl.String()`, for good.

    Raises:
        InputError: the log is there with items of another type.
    """
    events = pl.Schema({**EVENT_SCHEMA, "item_id": item_type})
    for name, schema in (("events", events), ("rejects", REJECTS_SCHEMA), ("ingestion", INGESTION_SCHEMA)):
        create_table(lake, name, schema)
    found = item_type_of(lake)
    if found != item_type:
        raise InputError(
            "the event log has item ids of another type",
            where=lake.uri("events"),
            found=f"{item_type}, the log has {found}",
            hint="set item_type of the column mapping, or begin another log",
        )


def create_table(lake: Tables, name: str, schema: pl.Schema) -> None:
    """Create an empty table if it is not there."""
    if exists_table(lake, name):
        return
    arrow = delta_stream.arrow_schema(schema)
    delta_stream.create(lake.uri(name), arrow, lake.storage_options, name=name, partition_by=["day"])


def exists_table(lake: Tables, name: str) -> bool:
    """Whether the table has been created."""
    return DeltaTable.is_deltatable(lake.uri(name), lake.storage_options)


def scan_table(lake: Tables, name: str) -> pl.LazyFrame:
    """The table as it stands, lazily."""
    return pl.scan_delta(lake.uri(name), storage_options=lake.storage_options)


def item_type_of(lake: Tables) -> pl.DataType:
    """The type of the log's item ids."""
    return scan_table(lake, "events").collect_schema()["item_id"]


def write_table(
    lake: Tables, name: str, predicate: str, frames: Callable[[pl.LazyFrame], Iterator[pl.DataFrame]]
) -> None:
    """Replace the rows that match `predicate` in one commit.

    Args:
        lake: where the table is.
        name: the table.
        predicate: over the partitions.
        frames: gives the new rows from the table as it stands; called again when another commit was in the way.
    """
    standing = [pl.LazyFrame()]

    def open_table() -> DeltaTable:
        table = _open(lake, name)
        # Opened here and not inside the stream: the stream occupies a worker of deltalake's runtime, and with as many
        # streams as workers nobody would be left to open a table. Opened twice, since the writer changes its own.
        standing[0] = pl.scan_delta(_open(lake, name, table.version()))
        return table

    delta_stream.replace(
        open_table,
        lambda: frames(standing[0]),
        scan_table(lake, name).collect_schema(),
        repeatable=True,
        predicate=predicate,
        metadata={},
    )


def _open(lake: Tables, name: str, version: int | None = None) -> DeltaTable:
    return DeltaTable(lake.uri(name), version=version, storage_options=lake.storage_options)


def in_days(days: Sequence[date | None]) -> str:
    """The predicate of these partitions."""
    named = ", ".join(f"'{day.isoformat()}'" for day in days if day is not None)
    parts = ([f"day IN ({named})"] if named else []) + (["day IS NULL"] if None in days else [])
    return " OR ".join(parts)
