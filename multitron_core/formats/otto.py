"""OTTO (2022): `otto-recsys-{train,test}.jsonl`, a session a line with all its events, times in milliseconds, UTC.

    {"session": 12, "events": [{"aid": 59625, "ts": 1661724000278, "type": "clicks"}, ...]}

A line is accepted or rejected as a whole. Lines as OTTO publishes them are recognised by one regular expression and
cut by text functions, about ten times as fast as a JSON parser; any other line goes through Python's, which either
gives the same session in OTTO's spelling or the reason why it is none.
"""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from multitron_core.formats.format import PARSED_COLUMNS, TIME, Files, Format, PreparationRules, SplitRule
from multitron_core.formats.text_lines import scan_text_lines

_TYPES = {"clicks": "click", "carts": "cart", "orders": "order"}
# 12 digits of seconds reach from 2001 to 2286; 18 digits always fit 64 bits.
_CANONICAL = (
    r'^\{"session":[0-9]{1,18},"events":\['
    r'\{"aid":[0-9]{1,18},"ts":[0-9]{13},"type":"(?:clicks|carts|orders)"\}'
    r'(?:,\{"aid":[0-9]{1,18},"ts":[0-9]{13},"type":"(?:clicks|carts|orders)"\})*\]\}$'
)
_CHECKED = pl.Struct({"session": pl.String, "reason": pl.String})


def _parse(files: Files, columns: object, storage_options: dict[str, str] | None) -> pl.LazyFrame:
    lines = scan_text_lines(files["sessions"], storage_options=storage_options)
    checked = lines.with_columns(
        pl.col("text").map_batches(_check, return_dtype=_CHECKED, is_elementwise=True).alias("checked")
    ).unnest("checked")
    head = pl.col("session").str.splitn('[{"aid":', 2).struct
    events = checked.with_columns(
        session_id=head.field("field_0").str.slice(11).str.strip_suffix(',"events":'),
        event=head.field("field_1").str.split('},{"aid":'),
    ).explode("event", empty_as_null=True, keep_nulls=True)
    # An event is now `59625,"ts":1661724000278,"type":"clicks"`, the last one with `}]}` behind it.
    parts = pl.col("event").str.splitn(',"ts":', 2).struct
    rest = parts.field("field_1")
    return events.with_columns(
        item_id=parts.field("field_0").cast(pl.Int64, strict=False),
        ts=rest.str.slice(0, 13).cast(pl.Int64, strict=False).cast(pl.Datetime("ms", "UTC")).cast(TIME),
        event_type=_event_type(rest.str.slice(22, 2)),
    ).select(PARSED_COLUMNS)


def _event_type(start: pl.Expr) -> pl.Expr:
    """click, cart or order of a type's first two letters; by number, which is three times as fast as by text."""
    number = start.cast(pl.Enum([name[:2] for name in _TYPES]), strict=False).to_physical()
    return number.cat.to(pl.Enum(list(_TYPES.values()))).cast(pl.String)


def _check(texts: pl.Series) -> pl.Series:
    """`session`, the line in OTTO's own spelling, or the `reason` why it is not one."""
    frame = texts.alias("session").to_frame().with_columns(reason=pl.lit(None, pl.String))
    odd = (~texts.str.contains(_CANONICAL).fill_null(False)).arg_true()
    if len(odd):
        checked = [_respell(text) for text in texts.gather(odd)]
        sessions = frame["session"].scatter(odd, [session for session, _ in checked])
        reasons = frame["reason"].scatter(odd, [reason for _, reason in checked])
        frame = pl.DataFrame({"session": sessions, "reason": reasons})
    return frame.to_struct(texts.name)


def _respell(text: str | None) -> tuple[str | None, str | None]:
    if text is None:
        return None, "empty line"
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None, "not JSON"
    if not isinstance(line, dict) or not isinstance(line.get("events"), list):
        return None, "not an object with session and events"
    if not _is_id(line.get("session")):
        return None, "session is not an integer"
    if not line["events"]:
        return None, "a session without events"
    for event in line["events"]:
        if not isinstance(event, dict):
            return None, "an event is not an object"
        if not _is_id(event.get("aid")):
            return None, "aid is not an integer"
        if not isinstance(event.get("type"), str) or event["type"] not in _TYPES:
            return None, "type is not clicks, carts or orders"
        if not _is_id(event.get("ts")) or len(str(event["ts"])) != 13:
            return None, "ts is not a time in milliseconds"
    events = [{"aid": event["aid"], "ts": event["ts"], "type": event["type"]} for event in line["events"]]
    return json.dumps({"session": line["session"], "events": events}, separators=(",", ":")), None


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**18


FORMAT = Format(
    name="otto",
    roles={"sessions": r"\.jsonl(\.gz|\.zst)?$"},
    parse=_parse,
    rules=PreparationRules(split=SplitRule(by="file"), min_item_clicks=1),
)
