"""Sessions for scoring: comparison with a reference, window, run date, unknown items."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitron_core.errors import InputError
from multitron_core.events.formats.format import TIME
from multitron_core.sessions.scoring import encode_sessions
from multitron_core.sessions.vocabulary import Vocabulary

START = datetime(2026, 1, 1, tzinfo=UTC)
VOCABULARY = Vocabulary(pl.Series([30, 10, 20]))

Row = tuple[str, int, int, str]  # session, item, hours since START, type


def log_of(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(
        [(session, item, START + timedelta(hours=hour), kind) for session, item, hour, kind in rows],
        schema={"session_id": pl.String, "item_id": pl.Int64, "ts": TIME, "event_type": pl.String},
        orient="row",
    )


def reference(rows: list[Row], until: date | None, days: int | None) -> list[Any]:
    """Rows of the sessions to score, computed with lists."""
    ids = VOCABULARY.item_ids.to_list()
    end = None if until is None else (until - START.date()).days * 24 + 24
    used = [row for row in rows if end is None or row[2] < end]
    if days is not None and used:
        # Without a run date, the window ends with the last event and includes it.
        first = end - 24 * days if end is not None else max(row[2] for row in used) - 24 * days + 1e-9
        active = {row[0] for row in used if row[2] >= first}
        used = [row for row in used if row[0] in active]
    result = []
    for session in sorted({row[0] for row in used}):
        events = sorted((row for row in used if row[0] == session), key=lambda row: row[2])
        clicks = [row for row in events if row[3] == "click" and row[1] in ids]
        labels = [any(o[3] == "order" and o[1] == click[1] and o[2] >= click[2] for o in events) for click in clicks]
        if clicks:
            result.append(
                {"session_id": session, "items": [ids.index(click[1]) + 1 for click in clicks], "ordered": labels}
            )
    return result


rows = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.sampled_from([10, 20, 30, 40, 50]),
        st.integers(0, 120),
        st.sampled_from(["click", "click", "order", "cart"]),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(rows, st.none() | st.integers(0, 5), st.none() | st.integers(1, 4), st.sampled_from([5, 1_000_000]))
def test_encode_sessions_equals_the_reference(
    log: list[Row], until_day: int | None, days: int | None, rows_in_memory: int
) -> None:
    until = None if until_day is None else START.date() + timedelta(days=until_day)
    sessions, statistics = encode_sessions(
        log_of(log), VOCABULARY, until=until, days=days, rows_in_memory=rows_in_memory
    )
    assert sessions.to_frame().to_dicts() == reference(log, until, days)
    assert sessions.vocabulary_hash == VOCABULARY.hash
    for kind in ("clicks", "orders", "carts"):
        dropped = sum(count for reason, count in statistics["dropped"].items() if reason.startswith(kind))
        assert statistics["in"][kind] == statistics.get(kind, 0) + dropped


def test_encode_sessions_ignores_events_after_run_date() -> None:
    log = log_of([("a", 10, 1, "click"), ("a", 20, 23, "click"), ("a", 30, 24, "click"), ("a", 10, 25, "order")])
    sessions, _ = encode_sessions(log, VOCABULARY, until=date(2026, 1, 1), days=1)
    assert sessions.to_frame().rows() == [("a", [2, 3], [False, False])]
    sessions, _ = encode_sessions(log, VOCABULARY, until=date(2026, 1, 2), days=1)
    assert sessions.to_frame().rows() == [("a", [2, 3, 1], [True, False, False])]
    sessions, _ = encode_sessions(log, VOCABULARY, until=date(2026, 1, 3), days=1)
    assert len(sessions) == 0


def test_encode_sessions_counts_unknown_items() -> None:
    log = log_of([("a", 10, 1, "click"), ("a", 70, 2, "click"), ("b", 70, 2, "click"), ("b", 80, 2, "click")])
    sessions, statistics = encode_sessions(log, VOCABULARY)
    assert sessions.session_ids.to_list() == ["a"]
    assert statistics["unknown_items"] == 2
    assert statistics["dropped"] == {"clicks: item that the vocabulary does not have": 3}


def test_encode_sessions_drops_old_sessions_of_users() -> None:
    log = log_of([("u", 10, 0, "click"), ("u", 20, 40, "click"), ("u", 30, 41, "click")])
    sessions, statistics = encode_sessions(
        log, VOCABULARY, until=date(2026, 1, 2), days=1, session_gap=timedelta(hours=2)
    )
    assert sessions.to_frame().rows() == [("u@2026-01-02T16:00:00.000000Z", [3, 1], [False, False])]
    assert statistics["dropped"] == {"clicks: session that ended before the window": 1}


def test_encode_sessions_of_string_items() -> None:
    log = log_of([("a", 10, 1, "click"), ("a", 20, 2, "click")]).with_columns(pl.col("item_id").cast(pl.String))
    vocabulary = Vocabulary(pl.Series(["20", "10"]))
    assert encode_sessions(log, vocabulary)[0].items.tolist() == [2, 1]
    with pytest.raises(InputError, match="another type"):
        encode_sessions(log, VOCABULARY)


def test_encode_sessions_refuses_days_below_1() -> None:
    with pytest.raises(InputError, match="days is not positive"):
        encode_sessions(log_of([("a", 10, 1, "click")]), VOCABULARY, days=0)
