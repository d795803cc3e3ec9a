"""File layouts of simulated events, one per raw format of `multitron_core.events`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import NamedTuple

import polars as pl

from multitron_core.utils.event_types import EVENT_TYPES

DAY_MS = 86_400_000
"""Milliseconds per day."""


class FileRows(NamedTuple):
    """Rows to append to a raw file.

    Args:
        name: Name of the file.
        rows: Rows with the columns of the file.
        separator: Separator of the columns.
        header: Whether the file begins with the names of the columns.
    """

    name: str
    rows: pl.DataFrame
    separator: str = ","
    header: bool = False


Layout = Callable[[pl.DataFrame, date, bool], list[FileRows]]
"""(events of `draw_events` with `item_id` and `category`, their day, whether it is the last day) -> rows per file."""


def _table(events: pl.DataFrame, day: date, last: bool) -> list[FileRows]:
    kind = pl.lit(pl.Series(EVENT_TYPES)).gather(pl.col("kind"))
    rows = events.sort("ts", maintain_order=True).select(
        pl.col("session").alias("session_id"), "item_id", pl.col("ts").cast(pl.Datetime("ms")), kind.alias("event_type")
    )
    return [FileRows(f"events-{day.isoformat()}.csv.gz", rows, header=True)]


def _diginetica(events: pl.DataFrame, day: date, last: bool) -> list[FileRows]:
    session, user = pl.col("session").alias("sessionId"), pl.lit("NA").alias("userId")
    item, number = pl.col("item_id").alias("itemId"), pl.col("session").alias("ordernumber")
    time = (pl.col("ts") % DAY_MS).alias("timeframe"), pl.col("ts").cast(pl.Datetime("ms")).dt.date().alias("eventdate")
    views = events.filter(pl.col("kind") == 0).select(session, user, item, *time)
    purchases = events.filter(pl.col("kind") == 2).select(session, user, *time, number, item)
    return [
        FileRows("train-item-views.csv", views, ";", header=True),
        FileRows("train-purchases.csv", purchases, ";", header=True),
    ]


def _yoochoose(events: pl.DataFrame, day: date, last: bool) -> list[FileRows]:
    common = "session", pl.col("ts").cast(pl.Datetime("ms")), "item_id"
    clicks = events.filter(pl.col("kind") == 0).select(*common, "category")
    buys = events.filter(pl.col("kind") == 2).select(*common, pl.lit(0).alias("price"), pl.lit(1).alias("quantity"))
    return [FileRows("yoochoose-clicks.dat", clicks), FileRows("yoochoose-buys.dat", buys)]


def _otto(events: pl.DataFrame, day: date, last: bool) -> list[FileRows]:
    kind = pl.lit(pl.Series([f"{name}s" for name in EVENT_TYPES])).gather(pl.col("kind"))
    aid, ts, of_type = pl.lit('{"aid":'), pl.lit(',"ts":'), pl.lit(',"type":"')
    event = pl.concat_str(aid, "item_id", ts, "ts", of_type, kind, pl.lit('"}'))
    lines = events.group_by("session", maintain_order=True).agg(event.str.join(",").alias("events"))
    line = pl.concat_str(pl.lit('{"session":'), "session", pl.lit(',"events":['), "events", pl.lit("]}"))
    return [FileRows(f"otto-recsys-{'test' if last else 'train'}.jsonl", lines.select(line.alias("line")))]


FORMATS: dict[str, Layout] = {"table": _table, "diginetica": _diginetica, "yoochoose": _yoochoose, "otto": _otto}
"""Layout of each format, by the name of the format."""
