"""Encoding of shards, and their merge into one order."""

from __future__ import annotations

import numpy as np
import polars as pl

from multitron_core.sessions.clicks import SessionClicks
from multitron_core.sessions.encoded_shards import (
    EncodedShard,
    by_first_event,
    by_session_id,
    encode_shard,
    merge_shards,
)


def clicks_of(sessions: dict[str, list[tuple[int, int]]], first_place: int = 0) -> SessionClicks:
    """Sessions of (item index, time) pairs; places count from `first_place`."""
    clicks = [click for session in sessions.values() for click in session]
    return SessionClicks(
        pl.Series(list(sessions), dtype=pl.String),
        np.arange(first_place, first_place + len(sessions)),
        np.array([len(session) for session in sessions.values()], dtype=np.int64),
        pl.Series([item for item, _ in clicks], dtype=pl.Int32),
        np.array([ts for _, ts in clicks], dtype=np.int64),
    )


def events_of(*rows: tuple[str, int, int]) -> pl.DataFrame:
    """Orders or carts of (session, item index, time)."""
    schema = {"session_id": pl.String, "item_index": pl.Int32, "ts": pl.Int64}
    return pl.DataFrame(list(rows), schema=schema, orient="row")


def shard(sessions: dict[str, list[tuple[int, int]]], first_place: int = 0) -> EncodedShard:
    return encode_shard(clicks_of(sessions, first_place), events_of())


def test_encode_shard_labels_clicks_and_moves_starts() -> None:
    clicks = clicks_of({"a": [(1, 10), (2, 20)], "b": [(1, 5)]})
    orders = events_of(("a", 2, 30), ("b", 1, 3), ("other", 1, 3))
    encoded = encode_shard(clicks, orders, events_of(("a", 1, 10), ("b", 1, 2)))
    assert encoded.ordered.tolist() == [False, True, False]
    assert (encoded.orders, encoded.carts) == (2, 2)
    assert encoded.start.tolist() == [10, 3]  # an order before the first click moves the start, a cart does not
    assert encoded.carted is not None
    assert encoded.carted.tolist() == [True, False, False]
    assert encode_shard(clicks, orders).carted is None


def test_merge_shards_orders_sessions_of_all_shards() -> None:
    shards = [shard({"c": [(1, 30)], "a": [(2, 10), (3, 11)]}), shard({"b": [(4, 10)]}, first_place=2)]
    merged = merge_shards([*shards], by_first_event, "hash")
    assert merged.to_frame().select("session_id", "items").rows() == [("a", [2, 3]), ("b", [4]), ("c", [1])]
    merged = merge_shards(shards, by_session_id, "hash")
    assert merged.session_ids.to_list() == ["a", "b", "c"]
    assert merged.vocabulary_hash == "hash"
    assert shards == [], "the list is emptied to free memory"


def test_merge_shards_without_shards() -> None:
    merged = merge_shards([], by_session_id, "hash")
    assert len(merged) == 0
    assert merged.to_frame().is_empty()


def test_by_first_event_breaks_ties_by_line() -> None:
    ids = pl.Series(["a", "b", "c"])
    assert by_first_event(ids, np.array([5, 5, 1]), np.array([9, 2, 7])).tolist() == [2, 1, 0]
