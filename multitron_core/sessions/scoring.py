"""Sessions to score for a run date: those of the last days, without events after that date."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import polars as pl

from multitron_core.errors import InputError
from multitron_core.events.read import EventLog
from multitron_core.sessions.clicks import group_clicks
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.encoded_shards import EncodedShard, by_session_id, encode_shard, merge_shards
from multitron_core.sessions.event_shards import ROWS_IN_MEMORY, EventShards
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.utils.event_types import EVENT_TYPES

UNKNOWN_ITEM = "item that the vocabulary does not have"
"""Reason in the statistics for dropped events of unknown items."""


def encode_sessions(
    events: EventLog | pl.LazyFrame | pl.DataFrame,
    vocabulary: Vocabulary,
    *,
    until: date | None = None,
    days: int | None = None,
    session_gap: timedelta | None = None,
    rows_in_memory: int = ROWS_IN_MEMORY,
) -> tuple[EncodedSessions, dict[str, Any]]:
    """Encode sessions for scoring with the vocabulary of a trained model.

    Args:
        events: The event log, or a part of it that contains all events of the sessions to score.
        vocabulary: Vocabulary of the model.
        until: Last day (UTC) whose events are used; None for all days.
        days: Use only sessions whose last event is within this many days up to `until` (or up to the last event of the
            log); None for all sessions.
        session_gap: Longest pause within a session, if `session_id` is the id of a user whose events are to be split
            into sessions.
        rows_in_memory: Maximum number of events in memory.

    Returns:
        The sessions with at least one click on a known item, with all their clicks on known items, sorted by session
        id; and statistics: `{"in": {"clicks", "orders", "carts"}, "sessions", "clicks", "orders", "unknown_items",
        "dropped": {reason: events}}`. `in` counts the events of the sessions in the window. For each event type, it
        equals the number of used events plus the number of dropped events.

    Raises:
        InputError: `days` is below 1, the type of the item ids differs from the vocabulary's, or the events have
            missing columns, nulls or unknown event types.
    """
    frame = events.events if isinstance(events, EventLog) else events.lazy()
    schema = frame.collect_schema()
    if schema.get("item_id") != vocabulary.item_ids.dtype:
        raise InputError(
            "the events' item ids are of another type than the vocabulary's",
            found=str(schema.get("item_id")),
            hint=f"cast item_id to {vocabulary.item_ids.dtype}, or use the vocabulary of these items",
        )
    if "file" not in schema or "line" not in schema:  # keep the order of rows, which a join may change
        frame = frame.with_row_index("line").with_columns(pl.lit("").alias("file"), pl.col("line").cast(pl.Int64))
    frame, since = _window(frame, until, days)
    shards_encoded: list[EncodedShard] = []
    unknown_items: list[pl.Series] = []
    dropped: Counter[str] = Counter()
    with EventShards(rows_in_memory=rows_in_memory, session_gap=session_gap) as shards:
        shards.read(frame)
        for number in range(len(shards)):
            encoded, unknown = _encode(shards.load(number), vocabulary, since, dropped)
            shards_encoded.append(encoded)
            unknown_items.append(unknown)
        counts = {f"{event_type}s": shards.counts[event_type] for event_type in EVENT_TYPES}
    orders = sum(shard.orders for shard in shards_encoded)
    sessions = merge_shards(shards_encoded, by_session_id, vocabulary.hash)
    statistics = {
        "in": counts,
        "sessions": len(sessions),
        "clicks": len(sessions.items),
        "orders": orders,
        "unknown_items": pl.concat(unknown_items).n_unique() if unknown_items else 0,
        "dropped": {reason: count for reason, count in dropped.items() if count},
    }
    return sessions, statistics


def _window(frame: pl.LazyFrame, until: date | None, days: int | None) -> tuple[pl.LazyFrame, int | None]:
    """Events of the sessions with an event in the window, and the beginning of the window in microseconds."""
    end = None if until is None else datetime.combine(until, time(), UTC) + timedelta(days=1)
    if end is not None:
        frame = frame.filter(pl.col("ts") < end)
    if days is None:
        return frame, None
    if days < 1:
        raise InputError("days is not positive", where="days", found=days, hint="use 1 or more")
    if end is None:
        last = frame.select(pl.col("ts").max()).collect(engine="streaming").item()
        if last is None:
            return frame, None
        end = last + timedelta(microseconds=1)
    since = end - timedelta(days=days)
    active = frame.filter(pl.col("ts") >= since).select("session_id").unique()
    sessions = frame.join(active, on="session_id", how="semi", maintain_order="left")
    return sessions, (since - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _encode(
    events: pl.DataFrame, vocabulary: Vocabulary, since: int | None, dropped: Counter[str]
) -> tuple[EncodedShard, pl.Series]:
    """Sessions of a shard, and the clicked items that are not in the vocabulary."""
    if since is not None:  # an active user may have earlier sessions that ended before the window
        ended = events.filter(pl.col("ts").max().over("session_id") < since)
        for event_type, count in ended["event_type"].cast(pl.String).value_counts().iter_rows():
            dropped[f"{event_type}s: session that ended before the window"] += count
        events = events.join(ended.select("session_id").unique(), on="session_id", how="anti", maintain_order="left")
    is_click, is_order = pl.col("event_type") == "click", pl.col("event_type") == "order"
    dropped["carts: not used"] += events.filter(~is_click & ~is_order).height
    clicks = group_clicks(events.filter(is_click))
    index = vocabulary.encode(clicks.items)
    known = (index > 0).to_numpy()
    unknown = clicks.items.filter(index == 0).unique()
    dropped[f"clicks: {UNKNOWN_ITEM}"] += int((~known).sum())
    clicks = clicks.with_items(index).with_clicks(known)
    clicks = clicks.with_sessions(clicks.lengths > 0)
    orders = events.filter(is_order)
    known_orders = orders.join(vocabulary.to_frame(), on="item_id", how="inner")
    dropped[f"orders: {UNKNOWN_ITEM}"] += len(orders) - len(known_orders)
    encoded = encode_shard(clicks, known_orders)
    dropped["orders: session without known clicks"] += len(known_orders) - encoded.orders
    return encoded, unknown
