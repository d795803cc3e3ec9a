"""Encoded sessions of one shard, and all shards put together in one order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from multitron_core.sessions.clicks import SessionClicks, order_labels
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.utils.ragged import ranges


@dataclass(frozen=True, eq=False)
class EncodedShard:
    """Sessions of a shard whose items are indices of a vocabulary.

    Args:
        clicks: `items` are int32 indices from 1; every session has a click.
        ordered: bool [clicks], the labels.
        start: int64 [sessions], the time of the first click or order, microseconds.
        orders: orders merged into these sessions.
        carted: bool [clicks], the labels of carts; None where they are not wanted.
        carts: carts merged into these sessions.
    """

    clicks: SessionClicks
    ordered: np.ndarray
    start: np.ndarray
    orders: int
    carted: np.ndarray | None = None
    carts: int = 0


def encode_shard(clicks: SessionClicks, orders: pl.DataFrame, carts: pl.DataFrame | None = None) -> EncodedShard:
    """Merge orders, and carts if they are wanted, into their sessions.

    Args:
        clicks: `items` are indices; every session has a click.
        orders: `session_id`, `ts` Int64, `item_index`; those of other sessions are left out.
        carts: the same; a session's start does not ask for them, so the order of sessions is the same without.
    """
    rows = clicks.session_ids.alias("session_id").to_frame().with_row_index("session")

    def of_these(events: pl.DataFrame) -> pl.DataFrame:
        return events.join(rows, on="session_id", how="inner").select("session", "ts", item="item_index")

    own = of_these(orders)
    start = clicks.first_ts().copy()
    first = own.group_by("session").agg(pl.col("ts").min())
    row = first["session"].to_numpy()
    start[row] = np.minimum(start[row], first["ts"].to_numpy())
    encoded = EncodedShard(clicks, order_labels(clicks, own), start, len(own))
    if carts is None:
        return encoded
    own_carts = of_these(carts)
    return replace(encoded, carted=order_labels(clicks, own_carts), carts=len(own_carts))


def merge_shards(
    shards: list[EncodedShard], order: Callable[[pl.Series, np.ndarray, np.ndarray], np.ndarray], vocabulary_hash: str
) -> EncodedSessions:
    """All sessions in one order.

    Args:
        shards: is emptied, so that a shard's arrays go as soon as they have been copied.
        order: (session ids, starts, places of first lines) -> rows in the wanted order, int64.
        vocabulary_hash: of the vocabulary that gave the indices.
    """
    if not shards:
        empty = np.zeros(0, np.int32)
        return EncodedSessions(
            pl.Series("session_id", [], pl.String), np.zeros(1, np.int64), empty, empty > 0, vocabulary_hash
        )
    session_ids = pl.concat([shard.clicks.session_ids for shard in shards]).alias("session_id")
    start = np.concatenate([shard.start for shard in shards])
    place = np.concatenate([shard.clicks.first_place for shard in shards])
    lengths = np.concatenate([shard.clicks.lengths for shard in shards])
    rows = order(session_ids, start, place)
    offsets = np.concatenate([[0], np.cumsum(lengths[rows])]).astype(np.int64)
    begin = np.empty(len(rows), dtype=np.int64)
    begin[rows] = offsets[:-1]  # where each session goes
    items, ordered = np.empty(offsets[-1], dtype=np.int32), np.empty(offsets[-1], dtype=bool)
    carted = None if shards[0].carted is None else np.empty(offsets[-1], dtype=bool)
    done = 0
    while shards:
        shard = shards.pop(0)
        sessions = slice(done, done + len(shard.clicks))
        done += len(shard.clicks)
        target = ranges(begin[sessions], shard.clicks.lengths)
        items[target], ordered[target] = shard.clicks.items.to_numpy(), shard.ordered
        if carted is not None:
            carted[target] = shard.carted
    return EncodedSessions(session_ids.gather(rows), offsets, items, ordered, vocabulary_hash, carted)


def by_first_event(session_ids: pl.Series, start: np.ndarray, place: np.ndarray) -> np.ndarray:
    """By the time of the first event; sessions of the same time in the order of their first lines."""
    return np.lexsort((place, start))


def by_session_id(session_ids: pl.Series, start: np.ndarray, place: np.ndarray) -> np.ndarray:
    """By id, which no rerun changes."""
    return session_ids.arg_sort().to_numpy().astype(np.int64)
