"""Clicks grouped by session, in time order; preparation filters, splits and encodes sessions in this form."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from multitron_core.utils.ragged import ranges


@dataclass(frozen=True, eq=False)
class SessionClicks:
    """Sessions of clicks; session s has `lengths[s]` consecutive clicks.

    Args:
        session_ids: String [sessions].
        first_place: int64 [sessions], place of the session's first line in the source (see `EventShards.load`).
        lengths: int64 [sessions], clicks per session.
        items: [clicks], source ids or integer codes, in time order within a session.
        ts: int64 [clicks], microseconds since 1970, UTC.
    """

    session_ids: pl.Series
    first_place: np.ndarray
    lengths: np.ndarray
    items: pl.Series
    ts: np.ndarray

    def __len__(self) -> int:
        return len(self.session_ids)

    @cached_property
    def offsets(self) -> np.ndarray:
        """int64 [sessions + 1], first click of each session, and the number of clicks."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    def first_ts(self) -> np.ndarray:
        """int64 [sessions], time of the first click; every session must have a click."""
        return self.ts[self.offsets[:-1]]

    def last_ts(self) -> np.ndarray:
        """int64 [sessions], time of the last click; every session must have a click."""
        return self.ts[self.offsets[1:] - 1]

    def with_items(self, items: pl.Series) -> SessionClicks:
        """The same clicks with other ids or codes of their items, [clicks]."""
        return dataclasses.replace(self, items=items)

    def with_clicks(self, keep: np.ndarray) -> SessionClicks:
        """The same sessions with the clicks selected by `keep` (bool [clicks]); sessions may become empty."""
        kept = np.concatenate([[0], np.cumsum(keep)])
        lengths = np.diff(kept[self.offsets]).astype(np.int64)
        return dataclasses.replace(self, lengths=lengths, items=self.items.filter(pl.Series(keep)), ts=self.ts[keep])

    def with_sessions(self, keep: np.ndarray) -> SessionClicks:
        """The sessions selected by `keep` (bool [sessions]), with their clicks."""
        clicks = np.repeat(keep, self.lengths)
        return SessionClicks(
            self.session_ids.filter(pl.Series(keep)),
            self.first_place[keep],
            self.lengths[keep],
            self.items.filter(pl.Series(clicks)),
            self.ts[clicks],
        )

    def take(self, rows: np.ndarray) -> SessionClicks:
        """The sessions of the given rows (int64 [n]), in the given order."""
        lengths = self.lengths[rows]
        clicks = ranges(self.offsets[rows], lengths)
        return SessionClicks(
            self.session_ids.gather(rows), self.first_place[rows], lengths, self.items.gather(clicks), self.ts[clicks]
        )

    def save(self, path: Path) -> None:
        """Write `<path>.sessions.arrow` and `<path>.clicks.arrow`."""
        sessions = {"session_id": self.session_ids, "first_place": self.first_place, "length": self.lengths}
        pl.DataFrame(sessions).write_ipc(f"{path}.sessions.arrow")
        pl.DataFrame({"item": self.items, "ts": self.ts}).write_ipc(f"{path}.clicks.arrow")

    @classmethod
    def load(cls, path: Path) -> SessionClicks:
        """Read the files that `save` wrote."""
        sessions = pl.read_ipc(f"{path}.sessions.arrow")
        clicks = pl.read_ipc(f"{path}.clicks.arrow")
        first_place, lengths = sessions["first_place"].to_numpy(), sessions["length"].to_numpy()
        return cls(sessions["session_id"], first_place, lengths, clicks["item"], clicks["ts"].to_numpy())


def group_clicks(clicks: pl.DataFrame) -> SessionClicks:
    """Group clicks by session and sort each session by time; clicks of the same time keep the order of lines.

    Args:
        clicks: `session_id`, `item_id`, `ts` Int64, `place` Int64 (see `EventShards.load`).
    """
    # Most raw logs are grouped by session and sorted; the test for that is ten times cheaper than grouping and sorting.
    starts = (clicks["session_id"] != clicks["session_id"].shift(1)).fill_null(True)
    runs = clicks["session_id"].filter(starts).hash()  # two ids with the same hash only cost time
    if runs.n_unique() < len(runs):
        codes = clicks.select("session_id").unique(maintain_order=True).with_row_index("session")
        clicks = clicks.join(codes, on="session_id", how="left", maintain_order="left")
        session = clicks["session"].to_numpy().astype(np.int64)
    else:
        session = np.cumsum(starts.to_numpy(), dtype=np.int64) - 1
    session_ids, items = clicks["session_id"], clicks["item_id"]
    ts, place = clicks["ts"].to_numpy(), clicks["place"].to_numpy()
    if not _sorted(session, ts, place):
        keys = pl.DataFrame({"session": session, "ts": ts, "place": place})
        rows = keys.select(pl.arg_sort_by("session", "ts", "place", maintain_order=True)).to_series()
        order = rows.to_numpy()
        session, ts, place, items = session[order], ts[order], place[order], items.gather(rows)
    else:
        rows = None
    lengths = np.bincount(session).astype(np.int64)
    offsets = np.cumsum(lengths) - lengths
    first_place = np.minimum.reduceat(place, offsets) if len(place) else np.zeros(0, np.int64)
    first_rows = offsets if rows is None else rows.gather(offsets)
    return SessionClicks(session_ids.gather(first_rows), first_place, lengths, items, ts)


def _sorted(session: np.ndarray, ts: np.ndarray, place: np.ndarray) -> bool:
    same = session[1:] == session[:-1]
    in_order = (ts[1:] > ts[:-1]) | ((ts[1:] == ts[:-1]) & (place[1:] >= place[:-1]))
    return bool(np.all(np.where(same, in_order, session[1:] > session[:-1])))


def order_labels(clicks: SessionClicks, orders: pl.DataFrame) -> np.ndarray:
    """Label clicks whose item is ordered later in the same session.

    A click precedes an order of the same time (MultiTRON, section 3.1; the official code sorts stably with clicks
    first). So orders at the time of the click or later count.

    Args:
        clicks: Sessions whose `items` are 32-bit integer codes.
        orders: `session` (row of the session, integer), `item` (code), `ts` Int64.

    Returns:
        bool [clicks].
    """
    if not len(orders):
        return np.zeros(len(clicks.ts), dtype=bool)
    with_order = np.zeros(len(clicks), dtype=bool)
    with_order[orders["session"].to_numpy()] = True
    candidates = np.flatnonzero(
        np.repeat(with_order, clicks.lengths)
    )  # a small part of the clicks: few sessions have orders
    rows = np.flatnonzero(with_order)
    session = np.repeat(rows, clicks.lengths[rows])
    pair = pl.col("session").cast(pl.Int64) * 2**32 + pl.col("item")  # a join on one key is faster than on two
    last_order = orders.group_by(pair=pair).agg(last_order=pl.col("ts").max())
    table = pl.DataFrame({"session": session, "item": clicks.items.gather(candidates), "ts": clicks.ts[candidates]})
    joined = table.select("ts", pair=pair).join(last_order, on="pair", how="left", maintain_order="left")
    ordered = np.zeros(len(clicks.ts), dtype=bool)
    ordered[candidates] = (joined["last_order"] >= joined["ts"]).fill_null(False).to_numpy()
    return ordered
