"""Raw sources: patterns of day files, and the files of a range of days."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from multitron_core.errors import InputError, UnavailableError
from multitron_core.events.formats import ColumnMapping
from multitron_core.events.raw_source import RawSource, days_between

DAY = date(2026, 1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": "events.csv"}, "do not contain the day"),
        ({"files": "events-{day}.csv"}, "pattern of the file names is not valid"),
        ({"format": "amazon"}, "unknown format"),
        ({"columns": {"session": "s"}}, "unknown settings"),
    ],
)
def test_raw_source_refuses_invalid_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RawSource(**{"path": "raw", "format": "table", **options})


def test_raw_source_reads_columns_from_settings() -> None:
    source = RawSource("raw", "table", columns={"user_id": "user", "session_gap": 20})
    assert source.mapping == ColumnMapping(user_id="user", session_gap=timedelta(minutes=20))
    assert RawSource("raw", "table").mapping is None


def test_raw_source_find_gives_files_and_their_days(tmp_path: Path) -> None:
    for name in ("20260101/a.csv", "20260102/a.csv", "20260102/b.csv", "20260103/a.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    source = RawSource(str(tmp_path), "table", files="{date:%Y%m%d}/*.csv")
    files, days = source.find(DAY, DAY + timedelta(days=1))
    assert [file.name for file in files["events"]] == ["20260101/a.csv", "20260102/a.csv", "20260102/b.csv"]
    assert days == {name.name: date(2026, 1, int(name.name[7])) for name in files["events"]}
    with pytest.raises(UnavailableError, match="no table file of 2026-01-04, 2026-01-05"):
        source.find(DAY, DAY + timedelta(days=4))


def test_days_between_includes_both_ends() -> None:
    assert days_between(date(2026, 2, 28), date(2026, 3, 1)) == [date(2026, 2, 28), date(2026, 3, 1)]
    assert days_between(DAY, DAY) == [DAY]
    with pytest.raises(InputError, match="last day is before the first day"):
        days_between(DAY, DAY - timedelta(days=1))
