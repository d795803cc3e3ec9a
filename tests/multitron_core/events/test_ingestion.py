"""The event log: days ingested singly, repeatedly, concurrently, with late, duplicate and damaged events."""

from __future__ import annotations

import gzip
import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from multitron_core.errors import InputError, UnavailableError
from multitron_core.events.formats import ColumnMapping
from multitron_core.events.ingestion import ingest, read_event_log, read_ingestion
from multitron_core.events.raw_source import RawSource
from multitron_core.events.read import read_events
from multitron_core.lake import delta_stream
from multitron_core.lake.lake import Lake
from multitron_core.sessions.prepare import prepare_sessions
from multitron_core.simulator.simulation import simulate

HEADER = "session_id,item_id,ts,event_type\n"
D1, D2, D3 = date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)


def write(folder: Path, day: date, *lines: str, name: str = "events-{}.csv") -> None:
    folder.mkdir(exist_ok=True)
    (folder / name.format(day)).write_text(HEADER + "".join(line + "\n" for line in lines))


def table_source(folder: Path, **options: Any) -> RawSource:
    return RawSource(str(folder), "table", files="events-{date}*.csv*", **options)


def rows(lake: Lake) -> list[tuple[object, ...]]:
    events = read_event_log(lake).select("session_id", "item_id", pl.col("ts").dt.strftime("%d %H:%M"), "event_type")
    return sorted(events.collect().iter_rows())


def read_table(lake: Lake, name: str) -> pl.DataFrame:
    frame = pl.read_delta(lake.uri(name))
    return frame.sort(frame.columns)


def adds_up(counts: dict[str, Any]) -> bool:
    parts = sum(counts["accepted"].values()) + counts["duplicate"] + sum(counts["rejected"].values())
    return bool(counts["in"] == parts)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def test_ingest_again_replaces_events_of_same_files(tmp_path: Path, lake: Lake) -> None:
    raw = tmp_path / "raw"
    write(raw, D1, "a,1,2026-01-01T10:00:00Z,click", "a,2,2026-01-01T10:01:00Z,order")
    write(raw, D2, "b,1,2026-01-02T10:00:00Z,click")
    ingest(table_source(raw), lake, D1, D1)
    ingest(table_source(raw), lake, D2, D2)
    write(raw, D1, "a,3,2026-01-01T11:00:00Z,click")
    report = ingest(table_source(raw), lake, D1, D1)
    assert rows(lake) == [("a", 3, "01 11:00", "click"), ("b", 1, "02 10:00", "click")]
    assert report.events == 1
    assert report.late_days == []
    before = read_table(lake, "events"), read_table(lake, "ingestion")
    assert ingest(table_source(raw), lake, D1, D2).events == 2
    assert before[0].equals(read_table(lake, "events"))
    assert before[1].equals(read_table(lake, "ingestion"))


def test_ingest_recounts_after_concurrent_ingestion(
    tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    write(raw, D1, "a,1,2026-01-01T10:00:00Z,click", "a,2,2026-01-01T10:01:00Z,order")
    write(raw, D2, "b,1,2026-01-01T23:59:00Z,click", "b,2,2026-01-02T00:01:00Z,click")  # the first event is late
    sequential = Lake(tmp_path / "sequential")
    for day in (D1, D2):
        ingest(table_source(raw), sequential, day, day)
    write_stream = delta_stream.write_stream
    overtaken: list[date] = []

    def write_after_other_ingestion(table: DeltaTable, *arguments: Any, **options: Any) -> None:
        # Patched, because no other way places an ingestion reliably between the counts and their commit.
        if table.table_uri.rstrip("/").endswith("ingestion") and not overtaken:
            overtaken.append(D2)
            ingest(table_source(raw), lake, D2, D2)
        write_stream(table, *arguments, **options)

    monkeypatch.setattr(delta_stream, "write_stream", write_after_other_ingestion)
    report = ingest(table_source(raw), lake, D1, D1)
    assert overtaken == [D2]
    assert report.counts["in"] == 2
    for table in ("events", "ingestion", "rejects"):
        assert read_table(lake, table).equals(read_table(sequential, table)), table


def test_ingest_puts_late_events_into_their_day(tmp_path: Path, lake: Lake) -> None:
    raw = tmp_path / "raw"
    write(raw, D1, "a,1,2026-01-01T10:00:00Z,click")
    write(raw, D2, "a,2,2026-01-01T23:59:00Z,click", "b,1,2026-01-02T00:00:00Z,click")
    ingest(table_source(raw), lake, D1, D1)
    report = ingest(table_source(raw), lake, D2, D2)
    assert report.late_days == [D1]
    assert report.counts["late"] == 1
    day_one = read_event_log(lake, D1, D1).collect()
    assert sorted(day_one["item_id"]) == [1, 2]
    ingest(table_source(raw), lake, D1, D1)  # the late event stays: the second day's file contains it
    assert len(rows(lake)) == 3
    write(raw, D2, "b,1,2026-01-02T00:00:00Z,click")
    report = ingest(table_source(raw), lake, D2, D2)  # the file no longer contains it, so it leaves the first day
    assert report.late_days == [D1]
    assert len(rows(lake)) == 2


def test_ingest_stores_equal_events_once(tmp_path: Path, lake: Lake) -> None:
    raw = tmp_path / "raw"
    event = "a,1,2026-01-01T10:00:00Z,click"
    write(raw, D1, event, event, "a,1,2026-01-01T10:00:00Z,order")
    write(raw, D1, event, name="events-{}-again.csv")
    write(raw, D2, event, "a,2,2026-01-02T10:00:00Z,click")
    report = ingest(table_source(raw), lake, D1, D1)
    assert report.counts == {"in": 4, "accepted": {"click": 1, "order": 1}, "duplicate": 2, "rejected": {}, "late": 0}
    report = ingest(table_source(raw), lake, D2, D2)
    assert report.counts["duplicate"] == 1
    assert len(rows(lake)) == 3
    # The first day is delivered again without the event that the second day's file repeats: ingest that day again.
    (raw / f"events-{D1}-again.csv").unlink()
    write(raw, D1, "a,1,2026-01-01T10:00:00Z,order")
    assert ingest(table_source(raw), lake, D1, D1).repeated_days == [D2]
    ingest(table_source(raw), lake, D2, D2)
    assert ("a", 1, "01 10:00", "click") in rows(lake)


def test_ingest_writes_rejects_and_counts_add_up(tmp_path: Path, lake: Lake) -> None:
    raw = tmp_path / "raw"
    write(raw, D1, "a,1,2026-01-01T10:00:00Z,click", "a,x,2026-01-01T10:00:00Z,click", "a,1,yesterday,click", "")
    write(raw, D2, "a,1,2031-01-01T10:00:00Z,click", "a,1,2026-01-02T10:00:00Z,click")
    mapping = ColumnMapping(item_type="integer")
    with pytest.raises(InputError, match=r"files of 2026-01-01.*more than|more than.*files of 2026-01-01"):
        ingest(table_source(raw, columns=mapping), lake, D1, D2)
    report = ingest(table_source(raw, columns=mapping, max_reject_share=0.9), lake, D1, D2)
    assert adds_up(report.counts)
    assert report.counts["rejected"] == {
        "empty line": 1,
        "item id is not an integer": 1,
        "time cannot be read": 1,
        "time is far from the day of the file": 1,
    }
    rejects = read_table(lake, "rejects").filter(pl.col("day") == D1)
    assert rejects.select("line", "text").rows()[0] == (3, "a,x,2026-01-01T10:00:00Z,click")
    write(raw, D1, "a,1,2026-01-01T10:00:00Z,click")
    ingest(table_source(raw), lake, D1, D1)
    assert read_table(lake, "rejects")["day"].to_list() == [D2]
    assert read_ingestion(lake, D2, D2)["day"].unique().to_list() == [D2]
    statistics = read_ingestion(lake).group_by("what").agg(pl.col("count").sum())
    assert dict(statistics.iter_rows()) == {"in": 3, "accepted": 2, "rejected": 1}


def test_ingest_refused_delivery_leaves_log_unchanged(tmp_path: Path, lake: Lake) -> None:
    raw = tmp_path / "raw"
    write(raw, D1, "a,1,2026-01-01T10:00:00Z,click")
    ingest(table_source(raw), lake, D1, D1)
    before = read_table(lake, "events")
    write(raw, D1, "rubbish", "more rubbish")
    with pytest.raises(InputError, match="2 of 2 lines are bad"):
        ingest(table_source(raw), lake, D1, D1)
    assert before.equals(read_table(lake, "events"))
    with pytest.raises(UnavailableError, match="2026-01-02"):
        ingest(table_source(raw), lake, D1, D2)
    with pytest.raises(InputError, match="last day"):
        ingest(table_source(raw), lake, D2, D1)


def test_ingest_without_day_files_keeps_requested_days(tmp_path: Path, lake: Lake) -> None:
    lines = ["1,2026-01-01T10:00:00.000Z,7,0", "1,2026-01-02T10:00:00.000Z,8,0", "2,2026-01-03T10:00:00.000Z,7,0"]
    (tmp_path / "yoochoose-clicks.dat").write_text("\n".join([*lines, "broken"]) + "\n")
    (tmp_path / "yoochoose-buys.dat").write_text("1,2026-01-01T10:30:00.000Z,7,100,1\n")
    source = RawSource(str(tmp_path), "yoochoose", max_reject_share=0.2)
    report = ingest(source, lake, D2, D2)
    assert rows(lake) == [("1", 8, "02 10:00", "click")]
    report = ingest(source, lake, D1, D3)
    assert len(rows(lake)) == 4
    assert report.late_days == []
    assert report.counts == {
        "in": 5, "accepted": {"click": 3, "order": 1}, "duplicate": 0,
        "rejected": {"not 4 fields separated by ,": 1}, "late": 0,
    }  # fmt: skip
    assert read_table(lake, "rejects")["day"].to_list() == [None]


@pytest.mark.parametrize(
    ("number_of_days", "rows_in_memory"),
    [(4, 100), pytest.param(30, 10_000_000, marks=pytest.mark.slow), pytest.param(30, 50, marks=pytest.mark.slow)],
)
def test_ingest_day_by_day_equals_one_ingestion(tmp_path: Path, number_of_days: int, rows_in_memory: int) -> None:
    raw = simulate(tmp_path / "raw", sessions=30 * number_of_days, items=100, days=number_of_days, seed=3).folder
    days = [date(2026, 1, 1 + number) for number in range(number_of_days)]
    for earlier, later in itertools.pairwise(days):  # each file also contains the last events of the day before
        names = [raw / f"events-{day}.csv.gz" for day in (earlier, later)]
        lines, more = (gzip.decompress(name.read_bytes()).decode().splitlines(keepends=True) for name in names)
        names[0].write_bytes(gzip.compress("".join(lines[:-4]).encode()))
        names[1].write_bytes(gzip.compress("".join([*more[:3], "damaged\n", *lines[-5:], *more[1:]]).encode()))
    source = table_source(raw, max_reject_share=0.2)
    day_by_day, at_once = Lake(tmp_path / "day-by-day"), Lake(tmp_path / "at-once")
    for day in days:
        report = ingest(source, day_by_day, day, day, rows_in_memory=rows_in_memory)
        assert adds_up(report.counts)
    report = ingest(source, at_once, days[0], days[-1])
    assert adds_up(report.counts)
    assert report.counts["duplicate"] >= number_of_days - 1
    for table in ("events", "rejects", "ingestion"):
        assert read_table(day_by_day, table).equals(read_table(at_once, table)), table


@pytest.mark.slow
def test_ingest_concurrently_equals_ingest_in_turn(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    days = [date(2026, 1, number) for number in range(1, 7)]
    for earlier, day in zip([D1, *days], days, strict=False):  # every file except the first has a late event
        late = f"late-{day},1,{earlier}T12:00:00Z,click"
        write(raw, day, *[f"s{day},{item},{day}T10:00:{item:02}Z,click" for item in range(20)], late, "damaged")
    source = table_source(raw, max_reject_share=0.1)
    in_turn, concurrent = Lake(tmp_path / "in-turn"), Lake(tmp_path / "concurrent")
    for lake in (in_turn, concurrent):
        ingest(source, lake, D1, D1)
    for day in days:
        ingest(source, in_turn, day, day)
    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(lambda day: ingest(source, concurrent, day, day), days))
    assert all(adds_up(report.counts) for report in reports)
    for table in ("events", "rejects"):
        assert read_table(in_turn, table).equals(read_table(concurrent, table)), table
    # Counts are written after the events; the last writer of a day counts the final rows of the table.
    for report in (ingest(source, lake, days[0], days[-1]) for lake in (in_turn, concurrent)):
        assert adds_up(report.counts)
    assert read_ingestion(in_turn).sort(pl.all()).equals(read_ingestion(concurrent).sort(pl.all()))


def test_ingest_keeps_ids_of_users(tmp_path: Path, lake: Lake) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "events-2026-01-01.csv").write_text("user,item_id,ts,event_type\nu,1,2026-01-01T10:00:00Z,click\n")
    ingest(table_source(raw, columns={"user_id": "user", "session_gap": 20}), lake, D1, D1)
    assert rows(lake) == [("u", 1, "01 10:00", "click")]


def test_ingest_refuses_change_of_item_type(tmp_path: Path, lake: Lake) -> None:
    raw = tmp_path / "raw"
    write(raw, D1, "a,shoe,2026-01-01T10:00:00Z,click")
    write(raw, D2, "a,12,2026-01-02T10:00:00Z,click")  # looks like an integer, but the log has strings
    ingest(table_source(raw), lake, D1, D1)
    ingest(table_source(raw), lake, D2, D2)
    assert [row[1] for row in rows(lake)] == ["12", "shoe"]
    with pytest.raises(InputError, match="another type"):
        ingest(table_source(raw, columns=ColumnMapping(item_type="integer"), max_reject_share=1.0), lake, D2, D2)


def test_read_event_log_without_ingestion_is_an_error(lake: Lake) -> None:
    with pytest.raises(InputError, match="no event log"):
        read_event_log(lake)


def test_read_ingestion_without_ingestion_is_an_error(lake: Lake) -> None:
    with pytest.raises(InputError, match="no event log"):
        read_ingestion(lake)


def test_read_event_log_gives_same_sessions_as_files(tmp_path: Path, lake: Lake) -> None:
    raw = simulate(tmp_path / "raw", sessions=1500, items=80, days=5, seed=4).folder
    direct = prepare_sessions(read_events(raw, "table"))
    ingest(table_source(raw), lake, D1, date(2026, 1, 5))
    logged = prepare_sessions(read_event_log(lake))
    assert direct.train.to_frame().equals(logged.train.to_frame())
    assert direct.test.to_frame().equals(logged.test.to_frame())
    assert direct.vocabulary.hash == logged.vocabulary.hash
