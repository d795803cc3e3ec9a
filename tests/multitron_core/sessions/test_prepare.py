"""Preparation compared with a simple reference; figures of the official code; refused input."""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitron_core.errors import InputError
from multitron_core.events.formats.format import TIME
from multitron_core.events.read import read_events
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.prepare import PreparedSessions, prepare_sessions

DAY = 86_400
START = datetime(2026, 1, 1, tzinfo=UTC)


class Event(NamedTuple):
    session: str
    item: int
    time: int  # seconds since START
    type: str


def log_of(events: list[Event]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "session_id": [event.session for event in events],
            "item_id": [event.item for event in events],
            "ts": [START + timedelta(seconds=event.time) for event in events],
            "event_type": [event.type for event in events],
        },
        schema={"session_id": pl.String, "item_id": pl.Int64, "ts": TIME, "event_type": pl.String},
    )


def reference(
    events: list[Event], *, days: float, by_last: bool, midnight: bool, min_clicks: int, min_item: int
) -> Any:
    """The rules of preparation, step by step, with lists and dictionaries.

    Returns:
        Train and test as [(session, items, labels)], the vocabulary, the numbers of orders in train and test; None if
        train or test is empty.
    """
    clicks: dict[str, list[Event]] = {}
    for event in events:
        if event.type == "click":
            clicks.setdefault(event.session, []).append(event)
    for session in clicks:
        clicks[session] = sorted(clicks[session], key=lambda event: event.time)

    def long(sessions: dict[str, list[Event]]) -> dict[str, list[Event]]:
        return {session: events for session, events in sessions.items() if len(events) >= min_clicks}

    clicks = long(clicks)
    support = Counter(event.item for session_clicks in clicks.values() for event in session_clicks)
    clicks = {key: [event for event in value if support[event.item] >= min_item] for key, value in clicks.items()}
    clicks = long(clicks)
    if not clicks:
        return None
    last_start = max(session_clicks[0].time for session_clicks in clicks.values())
    split = (last_start // DAY * DAY if midnight else last_start) - days * DAY
    which = -1 if by_last else 0
    train = {key: value for key, value in clicks.items() if value[which].time < split}
    test = {key: value for key, value in clicks.items() if value[which].time >= split}
    vocabulary = list(dict.fromkeys(event.item for session_clicks in train.values() for event in session_clicks))
    test = long({key: [event for event in value if event.item in vocabulary] for key, value in test.items()})
    if not train or not test:
        return None
    orders = [event for event in events if event.type == "order" and event.item in vocabulary]

    def finished(sessions: dict[str, list[Event]]) -> tuple[list[Any], int]:
        merged = {}
        for session, session_clicks in sessions.items():
            session_orders = [event for event in orders if event.session == session]
            merged[session] = sorted(session_clicks + session_orders, key=lambda event: event.time)
        rows = []
        for session, session_events in sorted(merged.items(), key=lambda pair: pair[1][0].time):
            items: list[int] = []
            labels: list[bool] = []
            ordered: set[int] = set()
            for event in reversed(session_events):
                if event.type == "order":
                    ordered.add(event.item)
                else:
                    items.insert(0, vocabulary.index(event.item) + 1)
                    labels.insert(0, event.item in ordered)
            rows.append((session, items, labels))
        return rows, sum(event.type == "order" for session_events in merged.values() for event in session_events)

    train_rows, train_orders = finished(train)
    test_rows, test_orders = finished(test)
    return train_rows, test_rows, vocabulary, train_orders, test_orders


def as_rows(sessions: EncodedSessions) -> list[Any]:
    return [(row["session_id"], row["items"], row["ordered"]) for row in sessions.to_frame().to_dicts()]


def assert_adds_up(statistics: dict[str, Any]) -> None:
    """Assert that every event is either used or dropped."""
    for event_type in ("clicks", "orders", "carts"):
        used = sum(statistics[part].get(event_type, 0) for part in ("train", "test"))
        dropped = sum(count for reason, count in statistics["dropped"].items() if reason.startswith(event_type))
        assert statistics["in"][event_type] == used + dropped, event_type


events = st.lists(
    st.builds(
        Event,
        st.sampled_from("abcdefgh"),
        st.integers(1, 6),
        # Few distinct times, so that clicks, orders and session starts have equal times.
        st.integers(0, 3).flatmap(lambda day: st.integers(0, 3).map(lambda minute: day * DAY + minute * 60)),
        st.sampled_from(["click", "click", "click", "click", "order", "cart"]),
    ),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(
    events,
    st.sampled_from(["diginetica", "yoochoose"]),
    st.sampled_from([0, 0.5, 1, 2]),
    st.integers(1, 3),
    st.integers(1, 5),
    st.sampled_from([7, 1_000_000]),
)
def test_prepare_sessions_equals_the_reference(
    log: list[Event], format: str, days: float, min_clicks: int, min_item: int, rows_in_memory: int
) -> None:
    by_last = format == "yoochoose"
    expected = reference(
        log, days=days, by_last=by_last, midnight=not by_last, min_clicks=min_clicks, min_item=min_item
    )
    options: dict[str, Any] = {
        "split_days": days,
        "min_session_clicks": min_clicks,
        "min_item_clicks": min_item,
        "rows_in_memory": rows_in_memory,
    }
    if expected is None:
        with pytest.raises(InputError):
            prepare_sessions(log_of(log), format, **options)
        return
    train, test, vocabulary, train_orders, test_orders = expected
    prepared = prepare_sessions(log_of(log), format, **options)
    assert prepared.vocabulary.item_ids.to_list() == vocabulary
    assert as_rows(prepared.train) == train
    assert as_rows(prepared.test) == test
    assert (prepared.statistics["train"]["orders"], prepared.statistics["test"]["orders"]) == (
        train_orders,
        test_orders,
    )
    assert prepared.statistics["items"] == len(vocabulary)
    assert_adds_up(prepared.statistics)


@settings(max_examples=50, deadline=None)
@given(events, st.randoms())
def test_prepare_sessions_depends_on_lines_not_row_order(log: list[Event], random: Random) -> None:
    frame = log_of(log).with_row_index("line").with_columns(pl.col("line").cast(pl.Int64), file=pl.lit("f"))
    order = list(range(len(log)))
    random.shuffle(order)
    results: list[tuple[Any, ...]] = []
    for each in (frame, frame[order]):
        try:
            prepared = prepare_sessions(each, split_days=1, min_item_clicks=1)
            results.append((as_rows(prepared.train), as_rows(prepared.test), prepared.vocabulary.hash))
        except InputError as error:
            results.append((str(error),))
    assert results[0] == results[1]


def test_prepare_sessions_click_precedes_simultaneous_order() -> None:
    log = [
        Event("a", 1, 0, "click"), Event("a", 2, 60, "click"), Event("a", 1, 60, "order"), Event("a", 2, 60, "order"),
        Event("a", 1, 120, "click"), Event("b", 1, 3 * DAY, "click"), Event("b", 2, 3 * DAY + 1, "click"),
        Event("b", 1, 3 * DAY - 1, "order"),
    ]  # fmt: skip
    prepared = prepare_sessions(log_of(log), min_item_clicks=1)
    assert as_rows(prepared.train) == [("a", [1, 2, 1], [True, True, False])]
    assert as_rows(prepared.test) == [("b", [1, 2], [False, False])]


def test_prepare_sessions_splits_users_at_pauses() -> None:
    minutes = [0, 10, 40, 71, 80, 3000, 3001]
    log = [Event("u", item, 60 * minute, "click") for item, minute in enumerate(minutes, 1)]
    prepared = prepare_sessions(
        log_of([*log, Event("v", 1, 3001 * 60, "click"), Event("v", 2, 3001 * 60, "click")]),
        min_item_clicks=1, split_days=0, session_gap=timedelta(minutes=30), rows_in_memory=3,
    )  # fmt: skip
    assert prepared.train.session_ids.to_list() == ["u@2026-01-01T00:00:00.000000Z", "u@2026-01-01T01:11:00.000000Z"]
    assert [items for _, items, _ in as_rows(prepared.train)] == [[1, 2, 3], [4, 5]]
    assert_adds_up(prepared.statistics)
    with pytest.raises(InputError, match="gap"):
        prepare_sessions(log_of(log), session_gap=timedelta(0))


def test_prepare_sessions_of_otto_by_file_or_by_time(tmp_path: Path) -> None:
    def session(number: int, day: int, *items: int) -> str:
        start = 1_767_225_600_000 + day * 86_400_000
        listed = [{"aid": item, "ts": start + 1000 * step, "type": "clicks"} for step, item in enumerate(items)]
        listed.append({"aid": items[-1], "ts": start + 999_000, "type": "orders"})
        return json.dumps({"session": number, "events": listed}, separators=(",", ":")) + "\n"

    (tmp_path / "otto-recsys-train.jsonl").write_text(session(1, 0, 5, 6) + session(2, 3, 6, 5, 7) + session(4, 0, 5))
    (tmp_path / "otto-recsys-test.jsonl").write_text(session(3, 5, 5, 9, 7))
    prepared = prepare_sessions(read_events(tmp_path, "otto"), "otto")
    assert as_rows(prepared.train) == [("1", [1, 2], [False, True]), ("2", [2, 1, 3], [False, False, True])]
    assert as_rows(prepared.test) == [("3", [1, 3], [False, True])]
    assert prepared.statistics["split"] is None
    assert_adds_up(prepared.statistics)
    by_time = prepare_sessions(read_events(tmp_path, "otto"), "otto", split_days=3)
    assert by_time.statistics["train"]["sessions"] == 1
    (tmp_path / "otto-recsys-test.jsonl").unlink()
    with pytest.raises(InputError, match=r"no test session.*published"):
        prepare_sessions(read_events(tmp_path, "otto"), "otto")


def test_prepared_sessions_save_replaces_the_folder(tmp_path: Path) -> None:
    log = [Event(session, item, day * DAY + item, "click") for session, day in (("a", 0), ("b", 3)) for item in (1, 2)]
    prepared = prepare_sessions(log_of(log), min_item_clicks=1)
    folder = tmp_path / "sessions"
    for _ in range(2):
        prepared.save(folder)
        loaded = PreparedSessions.load(folder)
        assert as_rows(loaded.train) == as_rows(prepared.train)
        assert isinstance(loaded.train.items, np.memmap)
        assert loaded.vocabulary.hash == prepared.vocabulary.hash == loaded.test.vocabulary_hash
        assert loaded.statistics == prepared.statistics
    folders = [path.name.split(".")[0] for path in tmp_path.iterdir() if path.is_dir()]
    assert folders == ["sessions"] * 3, "the link, its folder, and the previous folder"
    (folder / "statistics.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        PreparedSessions.load(folder)


def test_prepare_sessions_errors_name_the_problem() -> None:
    log = log_of([Event("a", 1, 0, "click"), Event("a", 1, 1, "click")])
    with pytest.raises(InputError, match=r"no train session.*split_days"):
        prepare_sessions(log, min_item_clicks=1)
    with pytest.raises(InputError, match="no session is left"):
        prepare_sessions(log)
    with pytest.raises(InputError, match="no clicks"):
        prepare_sessions(log.filter(False))
    with pytest.raises(InputError, match="no clicks"):
        prepare_sessions(log.with_columns(event_type=pl.lit("cart")))
    with pytest.raises(InputError, match=r"unknown event types.*view"):
        prepare_sessions(log.with_columns(event_type=pl.lit("view")))
    with pytest.raises(InputError, match=r"lacks columns.*ts"):
        prepare_sessions(log.drop("ts"))
    with pytest.raises(InputError, match="time zone"):
        prepare_sessions(log.with_columns(pl.col("ts").dt.replace_time_zone(None)))
    with pytest.raises(InputError, match="neither integers nor strings"):
        prepare_sessions(log.with_columns(pl.col("item_id").cast(pl.Float64)))
    with pytest.raises(InputError, match=r"nulls.*item_id"):
        prepare_sessions(log.with_columns(item_id=pl.lit(None, pl.Int64)))
    with pytest.raises(InputError, match=r"unknown format.*diginetica"):
        prepare_sessions(log, "csv")


@pytest.mark.parametrize(
    "rules",
    [{"split_days": -1}, {"split_days": math.nan}, {"min_item_clicks": 0}, {"min_session_clicks": 0}],
)
def test_prepare_sessions_refuses_rules_out_of_range(rules: dict[str, Any]) -> None:
    log = log_of([Event("a", 1, 0, "click"), Event("a", 1, 1, "click")])
    with pytest.raises(InputError, match=r"out of range|negative"):
        prepare_sessions(log, **rules)


def test_prepare_sessions_refuses_too_many_rejects(tmp_path: Path) -> None:
    good = [f"{session},2026-01-0{day}T00:00:0{click}.000Z,7,0"
            for session, day in ((1, 1), (2, 5)) for click in range(5)]  # fmt: skip
    (tmp_path / "yoochoose-buys.dat").write_text("1,2026-01-01T01:00:00.000Z,7,1,1\n")
    (tmp_path / "yoochoose-clicks.dat").write_text("\n".join([*good, "rubbish", ""]))
    with pytest.raises(InputError, match=r"1 of 12 lines are bad.*yoochoose-clicks.dat, line 11.*rubbish"):
        prepare_sessions(read_events(tmp_path, "yoochoose"), "yoochoose")
    prepared = prepare_sessions(read_events(tmp_path, "yoochoose"), "yoochoose", max_reject_share=0.1)
    assert prepared.statistics["rejected"] == {"not 4 fields separated by ,": 1}
    assert prepared.statistics["train"] == {"sessions": 1, "clicks": 5, "orders": 1}


def test_prepare_sessions_equals_official_diginetica(real_data: Path) -> None:
    prepared = prepare_sessions(read_events(real_data / "diginetica-full", "diginetica"), "diginetica")
    assert prepared.statistics["train"] == {"sessions": 185_979, "clicks": 901_695, "orders": 6_643}
    assert prepared.statistics["test"] == {"sessions": 15_900, "clicks": 76_395, "orders": 875}
    assert prepared.statistics["items"] == 41_969
    assert_adds_up(prepared.statistics)
