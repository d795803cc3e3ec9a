"""The event log of raw files: line numbers, schemas, missing roles, damaged files, checks."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.events.ingestion import ingest
from multitron_core.events.raw_source import RawSource
from multitron_core.events.read import check_events, check_reject_share, read_events
from multitron_core.lake.lake import Lake
from multitron_core.sessions.prepare import prepare_sessions

LINE = "1,2014-04-07T10:51:09.277Z,7,0\n"


def test_read_events_requires_clicks_and_orders(tmp_path: Path) -> None:
    (tmp_path / "clicks.dat").write_text(LINE)
    with pytest.raises(InputError, match=r"no file of orders.*buys.*orders_required=False"):
        read_events(tmp_path, "yoochoose")
    assert len(read_events(tmp_path, "yoochoose", orders_required=False).events.collect()) == 1
    (tmp_path / "clicks.dat").rename(tmp_path / "buys.dat")
    with pytest.raises(InputError, match="no file of clicks"):
        read_events(tmp_path, "yoochoose", orders_required=False)


def test_read_events_refuses_duplicate_files(tmp_path: Path) -> None:
    for name in ("clicks.dat", "clicks.dat.gz"):
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=r"more than once.*clicks.dat.*clicks.dat.gz"):
        read_events(tmp_path, "yoochoose", orders_required=False)


def test_read_events_refuses_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown format.*ottto.*diginetica, otto, table, yoochoose"):
        read_events(tmp_path, "ottto")


def test_read_events_counts_lines_per_file(tmp_path: Path) -> None:
    (tmp_path / "clicks-a.dat").write_text(2 * LINE + "x\n" + LINE)
    (tmp_path / "clicks-b.dat").write_text("\n" + LINE)
    log = read_events(tmp_path, "yoochoose", orders_required=False)
    assert log.events.select("file", "line").collect().rows() == [
        ("clicks-a.dat", 1), ("clicks-a.dat", 2), ("clicks-a.dat", 4), ("clicks-b.dat", 2),
    ]  # fmt: skip
    rejects = log.rejects.collect()
    assert rejects.rows() == [
        ("clicks-a.dat", 3, "not 4 fields separated by ,", "x"),
        ("clicks-b.dat", 1, "empty line", None),
    ]
    assert dict(log.rejects.collect_schema()) == dict(rejects.schema)
    assert dict(log.events.collect_schema()) == {
        "session_id": pl.String, "item_id": pl.Int64, "ts": pl.Datetime("us", "UTC"), "event_type": pl.String,
        "file": pl.String, "line": pl.Int64,
    }  # fmt: skip


def test_read_events_of_damaged_gzip_file_is_an_error(tmp_path: Path) -> None:
    complete = gzip.compress(LINE.encode() * 1000)
    (tmp_path / "clicks.dat.gz").write_bytes(complete[:-9])
    log = read_events(tmp_path, "yoochoose", orders_required=False)
    with pytest.raises(InputError, match=r"cannot be read.*gzip -t"):
        prepare_sessions(log, "yoochoose")
    source = RawSource(str(tmp_path), "yoochoose", orders_required=False)
    with pytest.raises(InputError, match=r"cannot be read.*gzip -t"):
        ingest(source, Lake(tmp_path / "lake"), date(2014, 4, 7), date(2014, 4, 7))
    assert not (tmp_path / "lake").exists()


def test_check_events_casts_to_types_of_the_log() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    frame = pl.DataFrame({"event_type": ["click"], "ts": [noon], "session_id": [1], "item_id": [7]}).with_columns(
        pl.col("item_id").cast(pl.UInt16), pl.col("ts").dt.cast_time_unit("ms").dt.convert_time_zone("Europe/Berlin")
    )
    events = check_events(frame.lazy()).collect()
    assert events.rows() == [("1", 7, noon, "click")]
    assert dict(events.schema) == {
        "session_id": pl.String, "item_id": pl.Int64, "ts": pl.Datetime("us", "UTC"), "event_type": pl.String,
    }  # fmt: skip


def test_check_reject_share_ignores_harmless_reasons() -> None:
    first = pl.DataFrame([("f", 3, "not JSON", "x")], schema=["file", "line", "reason", "text"], orient="row")
    rejected = {"empty line": 90, "not JSON": 1}
    check_reject_share(9, rejected, first, max_share=0.1, where="raw")
    with pytest.raises(InputError, match=r"1 of 10 lines are bad.*share of 0.09.*f, line 3: not JSON: 'x'"):
        check_reject_share(9, rejected, first, max_share=0.09, where="raw")
    with pytest.raises(InputError, match=r"outside \[0, 1\]"):
        check_reject_share(9, rejected, first, max_share=1.5, where="raw")
