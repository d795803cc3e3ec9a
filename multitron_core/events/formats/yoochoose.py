"""Yoochoose (RecSys Challenge 2015): `yoochoose-clicks.dat` and `yoochoose-buys.dat`, separated by `,`, no header.

Lines are `session,time,item,category` for clicks and `session,time,item,price,quantity` for orders. Times are ISO 8601
text in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from multitron_core.events.formats.format import PARSED_COLUMNS, Files, Format, PreparationRules, SplitRule
from multitron_core.events.formats.text_lines import (
    first_reason,
    is_integer,
    iso_time,
    out_of_range,
    scan_text_lines,
    split_fields,
)
from multitron_core.events.raw_files import RawFile

_CLICKS = ("session", "time", "item", "category")
_BUYS = ("session", "time", "item", "price", "quantity")


def _parse(files: Files, columns: object, storage_options: dict[str, str] | None) -> pl.LazyFrame:
    parts = [
        _events(files[role], fields, event_type, storage_options)
        for role, fields, event_type in (("clicks", _CLICKS, "click"), ("orders", _BUYS, "order"))
        if files[role]
    ]
    return pl.concat(parts)


def _events(
    files: Sequence[RawFile], fields: tuple[str, ...], event_type: str, storage_options: dict[str, str] | None
) -> pl.LazyFrame:
    reasons = {
        "empty line": pl.col("text").is_null(),
        f"not {len(fields)} fields separated by ,": pl.col(fields[-1]).is_null()
        | pl.col(fields[-1]).str.contains(",", literal=True),
        "session is not an integer": ~is_integer(pl.col("session")),
        "item is not an integer": pl.col("item_id").is_null(),
        "time is not ISO 8601 in UTC": pl.col("ts").is_null(),
        "time out of range": out_of_range(pl.col("ts")),
    }
    return (
        split_fields(scan_text_lines(files, storage_options=storage_options), fields, ",")
        .with_columns(
            session_id=pl.col("session"),
            item_id=pl.col("item").cast(pl.Int64, strict=False),
            ts=iso_time(pl.col("time")),
            event_type=pl.lit(event_type),
        )
        .with_columns(reason=first_reason(reasons))
        .select(PARSED_COLUMNS)
    )


FORMAT = Format(
    name="yoochoose",
    roles={"clicks": r"clicks", "orders": r"buys"},
    parse=_parse,
    optional_roles=("orders",),
    rules=PreparationRules(split=SplitRule(by="last", days=1, anchor="start")),
)
