"""OTTO (2022): `otto-recsys-{train,test}.jsonl`, one session per line with all its events, times in milliseconds, UTC.

    {"session": 12, "events": [{"aid": 59625, "ts": 1661724000278, "type": "clicks"}, ...]}

A line is accepted or rejected as a whole. Lines in the canonical form that OTTO publishes match one regular expression
and are parsed as bytes, about twenty times as fast as with a JSON parser. Every other line goes through Python's JSON
parser, which gives either the same session in canonical form or the reason for the reject.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl

from multitron_core.events.formats.digits import read_integers
from multitron_core.events.formats.format import PARSED_SCHEMA, TIME, Files, Format, PreparationRules, SplitRule
from multitron_core.events.formats.text_lines import scan_text_lines

_TYPES = {"clicks": "click", "carts": "cart", "orders": "order"}
# 18 digits always fit in 64 bits; times of 13 digits are the years 2001 to 2286.
_CANONICAL = (
    r'^\{"session":[0-9]{1,18},"events":\['
    r'\{"aid":[0-9]{1,18},"ts":[0-9]{13},"type":"(?:clicks|carts|orders)"\}'
    r'(?:,\{"aid":[0-9]{1,18},"ts":[0-9]{13},"type":"(?:clicks|carts|orders)"\})*\]\}$'
)


def _parse(files: Files, columns: object, storage_options: dict[str, str] | None) -> pl.LazyFrame:
    lines = scan_text_lines(files["sessions"], storage_options=storage_options)
    return lines.map_batches(
        _events,
        schema=PARSED_SCHEMA,
        predicate_pushdown=False,
        projection_pushdown=False,
        slice_pushdown=False,
        streamable=True,
    )


def _events(lines: pl.DataFrame) -> pl.DataFrame:
    """Parse lines into one row per event and one per rejected line; columns of `PARSED_SCHEMA`."""
    canonical = lines["text"].str.contains(_CANONICAL).fill_null(False)
    if canonical.all():
        return _canonical_events(lines)
    rewritten = [_canonical_line(text) for text in lines["text"].filter(~canonical)]
    other = lines.filter(~canonical).with_columns(
        session=pl.Series([session for session, _ in rewritten], dtype=pl.String),
        reason=pl.Series([reason for _, reason in rewritten], dtype=pl.String),
    )
    accepted = other.filter(pl.col("reason").is_null()).with_columns(text="session").select(lines.columns)
    rejected = other.filter(pl.col("reason").is_not_null()).select("file", "line", "reason", "text")
    all_canonical = pl.concat([lines.filter(canonical), accepted]).sort("line")
    return pl.concat([_canonical_events(all_canonical), rejected], how="diagonal").select(PARSED_SCHEMA.names())


def _canonical_events(lines: pl.DataFrame) -> pl.DataFrame:
    """Parse lines in canonical form.

    Fields are located from the braces of an event such as `{"aid":59625,"ts":1661724000278,"type":"clicks"}`: the id
    follows the opening brace, and type and time are at fixed distances before the closing brace.
    """
    text = np.frombuffer("".join(lines["text"].to_list()).encode(), dtype=np.uint8)
    braces = np.flatnonzero(text == ord("{"))
    is_event = text[braces + 2] == ord("a")  # the other braces begin a line: {"session"
    begin = braces[is_event]
    # An event is followed by `,{` of the next event, or by `]}` and the next line.
    event_follows = np.append(is_event[1:], False)[is_event]
    end = np.append(braces[1:], len(text))[is_event] - np.where(event_follows, 2, 3)  # position of its `}`
    letter = text[end - 3]  # the second last letter of clicks, carts, orders
    kind = (letter == ord("t")) * np.uint8(1) + (letter == ord("r")) * np.uint8(2)
    time_end = end - np.where(kind == 1, 15, 16)  # `,"type":"carts"` is one character shorter than the others
    id_end = time_end - 19  # `,"ts":` and 13 digits
    line = np.cumsum(~is_event)[is_event] - 1
    ids = lines["text"].str.slice(11, 19).str.splitn(",", 2).struct.field("field_0")  # the id follows `{"session":`
    return pl.DataFrame(
        {
            "session_id": ids.gather(line),
            "item_id": read_integers(text, id_end, id_end - begin - 7),
            "ts": pl.Series(read_integers(text, time_end, 13)).cast(pl.Datetime("ms", "UTC")).cast(TIME),
            "event_type": pl.Series(list(_TYPES.values())).gather(kind),
            "file": lines["file"].gather(line),
            "line": lines["line"].gather(line),
            "reason": pl.Series([None], dtype=pl.String).new_from_index(0, len(line)),
            "text": pl.Series([None], dtype=pl.String).new_from_index(0, len(line)),
        },
        schema=PARSED_SCHEMA,
    )


def _canonical_line(text: str | None) -> tuple[str | None, str | None]:
    """Rewrite a line in canonical form; returns (line, None), or (None, reason) for a reject."""
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
