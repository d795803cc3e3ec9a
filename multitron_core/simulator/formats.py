"""How simulated events are written: the file layouts of the formats that `read_events` knows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import NamedTuple

import polars as pl

DAY_MS = 86_400_000


EVENT_TYPES = ("click", "cart", "order")


class _File(NamedTuple):
    """Rows for one raw file, in its columns."""

    name: str
    rows: pl.DataFrame
    separator: str = ","
    header: bool = False


_Render = Callable[[pl.DataFrame, date, bool], list[_File]]
"""(events with `item_id` and `category`, the day, whether it is the last) -> what to append to which file."""


def _table(events: pl.DataFrame, day: date, last: bool) -> list[_File]:
    kind = pl.lit(pl.Series(EVENT_TYPES)).gather(pl.col("kind"))
    rows = events.sort("ts", maintain_order=True).select(
        pl.col("session").alias("session_id"), "item_id", pl.col("ts").cast(pl.Datetime("ms")), kind.alias("event_type")
    )
    return [_File(f"events-{day.isoformat()}.csv.gz", rows, header=True)]


def _diginetica(events: pl.DataFrame, day: date, last: bool) -> list[_File]:
    session, user = pl.col("session").alias("sessionId"), pl.lit("NA").alias("userId")
    item, number = pl.col("item_id").alias("itemId"), pl.col("session").alias("ordernumber")
    time = (pl.col("ts") % DAY_MS).alias("timeframe"), pl.col("ts").cast(pl.Datetime("ms")).dt.date().alias("eventdate")
    views = events.filter(pl.col("kind") == 0).select(session, user, item, *time)
    purchases = events.filter(pl.col("kind") == 2).select(session, user, *time, number, item)
    return [
        _File("train-item-views.csv", views, ";", header=True),
        _File("train-purchases.csv", purchases, ";", header=True),
    ]


def _yoochoose(events: pl.DataFrame, day: date, last: bool) -> list[_File]:
    known = "session", pl.col("ts").cast(pl.Datetime("ms")), "item_id"
    clicks = events.filter(pl.col("kind") == 0).select(*known, "category")
    buys = events.filter(pl.col("kind") == 2).select(*known, pl.lit(0).alias("price"), pl.lit(1).alias("quantity"))
    return [_File("yoochoose-clicks.dat", clicks), _File("yoochoose-buys.dat", buys)]


def _otto(events: pl.DataFrame, day: date, last: bool) -> list[_File]:
    kind = pl.lit(pl.Series([f"{name}s" for name in EVENT_TYPES])).gather(pl.col("kind"))
    aid, ts, of_type = pl.lit('{"aid":'), pl.lit(',"ts":'), pl.lit(',"type":"')
    event = pl.concat_str(aid, "item_id", ts, "ts", of_type, kind, pl.lit('"}'))
    lines = events.group_by("session", maintain_order=True).agg(event.str.join(",").alias("events"))
    line = pl.concat_str(pl.lit('{"session":'), "session", pl.lit(',"events":['), "events", pl.lit("]}"))
    return [_File(f"otto-recsys-{'test' if last else 'train'}.jsonl", lines.select(line.alias("line")))]


_FORMATS: dict[str, _Render] = {"table": _table, "diginetica": _diginetica, "yoochoose": _yoochoose, "otto": _otto}
