"""Delta tables of the event log: schemas, creation, reading and writing.

All three tables are partitioned by `day`, and a commit replaces whole days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date

import polars as pl
from deltalake import DeltaTable

from multitron_core.errors import InputError
from multitron_core.events.formats.format import TIME
from multitron_core.events.read import REJECT_SCHEMA
from multitron_core.lake import delta_stream
from multitron_core.lake.tables import Tables

EVENT_SCHEMA = pl.Schema(
    [
        ("session_id", pl.String),
        ("item_id", pl.Int64),  # or String, as in the source
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


def create_event_log(lake: Tables, item_type: pl.DataType) -> None:
    """Create the tables of the event log that do not exist yet.

    Args:
        lake: Location of the tables.
        item_type: `pl.Int64()` or `pl.String()`. The type of an existing log cannot change.

    Raises:
        InputError: The log exists with another type of item ids.
    """
    events = pl.Schema({**EVENT_SCHEMA, "item_id": item_type})
    for name, schema in (("events", events), ("rejects", REJECTS_SCHEMA), ("ingestion", INGESTION_SCHEMA)):
        if not lake.exists(name):
            lake.create_table(name, delta_stream.arrow_schema(schema), partition_by=["day"])
    found = item_type_of(lake)
    if found != item_type:
        raise InputError(
            "the event log has item ids of another type",
            where=lake.uri("events"),
            found=f"{item_type}, the log has {found}",
            hint="set item_type of the column mapping, or start a new log",
        )


def scan_table(lake: Tables, name: str) -> pl.LazyFrame:
    """Lazy frame of the table's newest version."""
    return pl.scan_delta(lake.uri(name), storage_options=lake.storage_options)


def item_type_of(lake: Tables) -> pl.DataType:
    """Type of the item ids in the event log."""
    return scan_table(lake, "events").collect_schema()["item_id"]


def write_table(
    lake: Tables, name: str, predicate: str, frames: Callable[[pl.LazyFrame], Iterator[pl.DataFrame]]
) -> None:
    """Replace the rows that match `predicate` in one commit.

    Args:
        lake: Location of the table.
        name: Name of the table.
        predicate: SQL condition on the partition column.
        frames: Gives the new rows, from the table's rows before the write. It is called again after a conflict with
            another commit.
    """
    current = [pl.LazyFrame()]

    def open_table() -> DeltaTable:
        table = lake.open(name)
        # The table is opened before the stream starts: the stream occupies a worker of deltalake's runtime, and with
        # as many streams as workers no worker would be left to open a table. It is opened a second time because the
        # writer moves the first instance to the version that it commits.
        current[0] = pl.scan_delta(lake.open(name, table.version()))
        return table

    delta_stream.replace(
        open_table,
        lambda: frames(current[0]),
        scan_table(lake, name).collect_schema(),
        repeatable=True,
        predicate=predicate,
        metadata={},
    )


def days_predicate(days: Sequence[date | None]) -> str:
    """SQL condition that matches the partitions of the given days; None is the partition without a day."""
    named = ", ".join(f"'{day.isoformat()}'" for day in days if day is not None)
    parts = ([f"day IN ({named})"] if named else []) + (["day IS NULL"] if None in days else [])
    return " OR ".join(parts)
