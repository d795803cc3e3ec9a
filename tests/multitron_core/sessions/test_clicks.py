"""Grouping, selecting and labelling clicks, against results worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from multitron_core.sessions.clicks import SessionClicks, group_clicks, order_labels


def grouped(rows: list[tuple[str, int, int]]) -> SessionClicks:
    frame = pl.DataFrame(rows, schema={"session_id": pl.String, "item_id": pl.Int64, "ts": pl.Int64}, orient="row")
    return group_clicks(frame.with_columns(place=pl.int_range(pl.len(), dtype=pl.Int64)))


def as_dict(clicks: SessionClicks) -> dict[str, list[int]]:
    ends = zip(clicks.session_ids, clicks.offsets, clicks.offsets[1:], strict=False)
    return {session: clicks.items[int(start) : int(end)].to_list() for session, start, end in ends}


def test_group_clicks_sorts_by_time_then_line() -> None:
    clicks = grouped([("b", 1, 5), ("a", 2, 9), ("b", 3, 5), ("a", 4, 1), ("b", 5, 4)])
    assert as_dict(clicks) == {"b": [5, 1, 3], "a": [4, 2]}
    assert clicks.first_place.tolist() == [0, 1]
    assert (clicks.first_ts().tolist(), clicks.last_ts().tolist()) == ([4, 1], [5, 9])


def test_group_clicks_of_sorted_and_reversed_log() -> None:
    rows = [(session, item, item) for session in "cab" for item in range(4)]
    assert as_dict(grouped(rows)) == {"c": [0, 1, 2, 3], "a": [0, 1, 2, 3], "b": [0, 1, 2, 3]}
    assert as_dict(grouped(rows[::-1])) == {"b": [0, 1, 2, 3], "a": [0, 1, 2, 3], "c": [0, 1, 2, 3]}


def test_group_clicks_of_empty_log() -> None:
    clicks = grouped([])
    assert len(clicks) == 0
    assert clicks.offsets.tolist() == [0]
    assert len(order_labels(clicks, pl.DataFrame({"session": [], "item": [], "ts": []}))) == 0


def test_session_clicks_select_clicks_and_sessions() -> None:
    clicks = grouped([("a", 1, 1), ("a", 2, 2), ("b", 3, 1), ("c", 4, 1), ("c", 5, 2)])
    assert as_dict(clicks.with_clicks(np.array([True, False, False, True, True]))) == {"a": [1], "b": [], "c": [4, 5]}
    assert as_dict(clicks.with_sessions(np.array([False, True, True]))) == {"b": [3], "c": [4, 5]}
    assert as_dict(clicks.take(np.array([2, 0]))) == {"c": [4, 5], "a": [1, 2]}
    assert as_dict(clicks.take(np.array([], dtype=np.int64))) == {}


def test_session_clicks_save_and_load(tmp_path: Path) -> None:
    clicks = grouped([("a", 1, 1), ("a", 2, 2), ("b", 3, 1)])
    clicks.save(tmp_path / "shard")
    loaded = SessionClicks.load(tmp_path / "shard")
    assert as_dict(loaded) == as_dict(clicks)
    assert loaded.ts.tolist() == clicks.ts.tolist()
    assert loaded.first_place.tolist() == clicks.first_place.tolist()


def test_order_labels_of_orders_at_or_after_click() -> None:
    clicks = grouped([("a", 7, 1), ("a", 8, 2), ("a", 7, 3), ("a", 7, 4), ("b", 7, 1)])
    orders = pl.DataFrame({"session": [0, 0, 0], "item": [7, 7, 8], "ts": [3, 2, 1]})
    assert order_labels(clicks, orders).tolist() == [True, False, True, False, False]
