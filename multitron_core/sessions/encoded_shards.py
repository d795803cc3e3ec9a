"""Encoded sessions of single shards, and their merge into one order."""

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
        clicks: Sessions whose `items` are int32 indices from 1; every session has a click.
        ordered: bool [clicks], labels of orders.
        start: int64 [sessions], time of the first click or order, in microseconds.
        orders: Number of orders of these sessions.
        carted: bool [clicks], labels of carts; None if carts are not an objective.
        carts: Number of carts of these sessions.
    """

    clicks: SessionClicks
    ordered: np.ndarray
    start: np.ndarray
    orders: int
    carted: np.ndarray | None = None
    carts: int = 0


def encode_shard(clicks: SessionClicks, orders: pl.DataFrame, carts: pl.DataFrame | None = None) -> EncodedShard:
    """Label the clicks of sessions with their orders and, if given, their carts.

    Args:
        clicks: Sessions whose `items` are indices; every session has a click.
        orders: `session_id`, `ts` Int64, `item_index`; orders of other sessions are ignored.
        carts: The same columns; None if carts are not an objective. Carts do not change the start of a session, so the
            order of sessions does not depend on them.
    """
    rows = clicks.session_ids.alias("session_id").to_frame().with_row_index("session")

    def of_sessions(events: pl.DataFrame) -> pl.DataFrame:
        return events.join(rows, on="session_id", how="inner").select("session", "ts", item="item_index")

    session_orders = of_sessions(orders)
    start = clicks.first_ts().copy()
    first = session_orders.group_by("session").agg(pl.col("ts").min())
    row = first["session"].to_numpy()
    start[row] = np.minimum(start[row], first["ts"].to_numpy())
    encoded = EncodedShard(clicks, order_labels(clicks, session_orders), start, len(session_orders))
    if carts is None:
        return encoded
    session_carts = of_sessions(carts)
    return replace(encoded, carted=order_labels(clicks, session_carts), carts=len(session_carts))


def merge_shards(
    shards: list[EncodedShard], order: Callable[[pl.Series, np.ndarray, np.ndarray], np.ndarray], vocabulary_hash: str
) -> EncodedSessions:
    """Merge the sessions of all shards into one order.

    Args:
        shards: The shards. The list is emptied, so that a shard's memory is free as soon as it has been copied.
        order: (session ids, starts, places of first lines) -> int64 [sessions], rows in the new order.
        vocabulary_hash: Hash of the vocabulary of the indices.
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
    begin[rows] = offsets[:-1]  # first click of each session in the result
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
    """Order of `merge_shards`: by the time of the first event, and by the first line for equal times."""
    return np.lexsort((place, start))


def by_session_id(session_ids: pl.Series, start: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Order of `merge_shards`: by session id, which is the same in every run."""
    return session_ids.arg_sort().to_numpy().astype(np.int64)
