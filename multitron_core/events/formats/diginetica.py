"""Diginetica (CIKM Cup 2016): `train-item-views.csv` and `train-purchases.csv`, separated by `;`, with a header.

The time of an event is its date plus `timeframe` milliseconds, in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from multitron_core.events.formats.format import PARSED_COLUMNS, TIME, Files, Format, PreparationRules, SplitRule
from multitron_core.events.formats.text_lines import (
    first_reason,
    is_integer,
    out_of_range,
    scan_text_lines,
    split_fields,
)
from multitron_core.events.raw_files import RawFile

_VIEWS = ("sessionId", "userId", "itemId", "timeframe", "eventdate")
_PURCHASES = ("sessionId", "userId", "timeframe", "eventdate", "ordernumber", "itemId")
_MAX_TIMEFRAME = 10 * 366 * 86_400_000  # ten years in milliseconds; no session lasts as long


def _parse(files: Files, columns: object, storage_options: dict[str, str] | None) -> pl.LazyFrame:
    parts = [
        _events(files[role], fields, event_type, storage_options)
        for role, fields, event_type in (("clicks", _VIEWS, "click"), ("orders", _PURCHASES, "order"))
        if files[role]
    ]
    return pl.concat(parts)


def _events(
    files: Sequence[RawFile], fields: tuple[str, ...], event_type: str, storage_options: dict[str, str] | None
) -> pl.LazyFrame:
    lines = scan_text_lines(files, header=";".join(fields), storage_options=storage_options)
    timeframe = pl.col("timeframe").cast(pl.Int64, strict=False)
    date = pl.col("eventdate").str.to_date("%Y-%m-%d", strict=False)
    reasons = {
        "empty line": pl.col("text").is_null(),
        f"not {len(fields)} fields separated by ;": pl.col(fields[-1]).is_null()
        | pl.col(fields[-1]).str.contains(";", literal=True),
        "sessionId is not an integer": ~is_integer(pl.col("sessionId")),
        "itemId is not an integer": pl.col("item_id").is_null(),
        "timeframe is not a number of milliseconds": timeframe.is_null() | ~timeframe.is_between(0, _MAX_TIMEFRAME),
        "eventdate is not a date": date.is_null(),
        "time out of range": out_of_range(pl.col("ts")),
    }
    return (
        split_fields(lines, fields, ";")
        .with_columns(
            session_id=pl.col("sessionId"),
            item_id=pl.col("itemId").cast(pl.Int64, strict=False),
            ts=(date.cast(pl.Datetime("us")) + pl.duration(milliseconds=timeframe.clip(0, _MAX_TIMEFRAME)))
            .dt.replace_time_zone("UTC")
            .cast(TIME),
            event_type=pl.lit(event_type),
        )
        .with_columns(reason=first_reason(reasons))
        .select(PARSED_COLUMNS)
    )


FORMAT = Format(
    name="diginetica",
    roles={"clicks": r"item-views", "orders": r"purchases"},
    parse=_parse,
    optional_roles=("orders",),
    rules=PreparationRules(split=SplitRule(by="first", days=7, anchor="midnight")),
)
