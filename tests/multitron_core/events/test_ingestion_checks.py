"""Checks of ingested days, against counts worked out by hand."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.events.ingestion import ingest
from multitron_core.events.ingestion_checks import Limits, reconciliation, reject_shares, volumes
from multitron_core.events.raw_source import RawSource
from multitron_core.lake.lake import Lake

FIRST = date(2026, 1, 5)  # a Monday


def write(folder: Path, day: date, events: int, *others: str) -> None:
    folder.mkdir(exist_ok=True)
    lines = [f"s{number},{number},{day}T10:00:00Z,click" for number in range(events)]
    (folder / f"events-{day}.csv").write_text("\n".join(["session_id,item_id,ts,event_type", *lines, *others]) + "\n")


def ingested(folder: Path, last: date) -> Lake:
    lake = Lake(folder / "lake")
    ingest(RawSource(str(folder), "table", files="events-{date}.csv", max_reject_share=0.5), lake, FIRST, last)
    return lake


def test_reconciliation_compares_counts_with_tables(tmp_path: Path) -> None:
    second = FIRST + timedelta(days=1)
    write(tmp_path, FIRST, 3, f"s1,1,{FIRST}T10:00:00Z,click", "rubbish", "")
    write(tmp_path, second, 2, f"late,9,{FIRST}T23:59:59Z,click")
    lake = ingested(tmp_path, second)
    columns = ["day", "in", "accepted", "duplicate", "rejected", "events", "rejects", "adds_up"]
    assert reconciliation(lake, FIRST, second).select(columns).rows() == [
        (FIRST, 7, 4, 1, 2, 4, 2, True),
        (second, 2, 2, 0, 0, 2, 0, True),
    ]
    assert reconciliation(lake, second, second)["day"].to_list() == [second]
    lake.open("events").delete("day = '2026-01-06' AND session_id = 's1'")  # the table loses an event
    assert reconciliation(lake, FIRST, second)["adds_up"].to_list() == [True, False]


def test_reconciliation_of_files_without_days(tmp_path: Path) -> None:
    write(tmp_path, FIRST, 8, "rubbish")
    lake = Lake(tmp_path / "lake")
    ingest(RawSource(str(tmp_path), "table", max_reject_share=0.5), lake, FIRST, FIRST)
    assert reconciliation(lake, FIRST, FIRST).select("day", "in", "rejects", "adds_up").rows() == [
        (FIRST, 8, 0, True),
        (None, 1, 1, True),
    ]
    assert reject_shares(lake, FIRST, FIRST).rows() == [(None, 9, 1, 1 / 9, False)]


def test_volumes_compare_with_same_weekday(tmp_path: Path) -> None:
    # Mondays have 100 events, other days 10; three weeks, and a fourth Monday that lost most of its events.
    days = [FIRST + timedelta(days=number) for number in range(22)]
    for day in days:
        write(tmp_path, day, 40 if day == days[-1] else 100 if day.weekday() == 0 else 10)
    lake = ingested(tmp_path, days[-1])
    found = volumes(lake, FIRST, days[-1])
    assert found["usual"][:3].to_list() == [None, None, None]
    assert found.row(4) == (days[4], 10, 10.0, True)
    assert not found["near"][7], "with one earlier Monday only, all days give the usual volume"
    assert found.row(21) == (days[21], 40, 100.0, False)
    assert volumes(lake, days[21], days[21], Limits(min_volume=0.4))["near"].to_list() == [True]
    empty = days[-1] + timedelta(days=1)
    assert volumes(lake, empty, empty).row(0) == (empty, 0, 10.0, False)


def test_reject_shares_are_per_day_of_files(tmp_path: Path) -> None:
    second = FIRST + timedelta(days=1)
    write(tmp_path, FIRST, 9, "rubbish", "", "")
    write(tmp_path, second, 10, f"late,9,{FIRST}T23:59:59Z,click")
    lake = ingested(tmp_path, second)
    shares = reject_shares(lake, FIRST, second, Limits(max_share=0.05))
    assert shares.rows() == [(FIRST, 10, 1, 0.1, False), (second, 11, 0, 0.0, True)]
    assert reject_shares(lake, FIRST, FIRST, Limits(max_share=0.1)).select(pl.col("few").all()).item()


def test_limits_refuses_range_without_usual_volume() -> None:
    with pytest.raises(InputError, match="do not include the usual volume"):
        Limits(min_volume=1.5)
