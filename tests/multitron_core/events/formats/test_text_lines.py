"""Expressions that parse lines of text."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from multitron_core.events.formats.text_lines import (
    first_reason,
    iso_time,
    out_of_range,
    renamed,
    scan_text_lines,
    split_fields,
)
from multitron_core.events.raw_files import RawFile


def test_scan_text_lines_keeps_lines_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfhead\none\n\nt\xffo\n")
    (tmp_path / "b.csv").write_text("head of another kind\nhead\n")
    files = [RawFile(name, str(tmp_path / name)) for name in ("a.csv", "b.csv")]
    assert scan_text_lines(files, header="head").select("file", "line", "text").collect().rows() == [
        ("a.csv", 2, "one"),
        ("a.csv", 3, None),
        ("a.csv", 4, "t\ufffdo"),
        ("b.csv", 1, "head of another kind"),
        ("b.csv", 2, "head"),
    ]


def test_split_fields_leaves_surplus_in_last_field() -> None:
    lines = pl.LazyFrame({"text": ["1;2", "1", "1;2;3"]})
    assert split_fields(lines, ["a", "b"], ";").select("a", "b").collect().rows() == [
        ("1", "2"),
        ("1", None),
        ("1", "2;3"),
    ]


def test_first_reason_takes_null_as_false() -> None:
    frame = pl.DataFrame({"a": [True, None, False], "b": [True, True, False]})
    reason = first_reason({"a holds": pl.col("a"), "b holds": pl.col("b")})
    assert frame.select(reason).to_series().to_list() == ["a holds", "b holds", None]


def test_renamed_gives_null_for_unknown_text() -> None:
    frame = pl.DataFrame({"text": ["view", "buy", "look", None]})
    names = {"view": "click", "buy": "order"}
    assert frame.select(renamed(pl.col("text"), names)).to_series().to_list() == ["click", "order", None, None]
    assert frame.select(renamed(pl.col("text"), {})).to_series().null_count() > 0


def test_iso_time_of_valid_and_invalid_text() -> None:
    texts = ["2014-04-07T10:51:09.277Z", "2014-04-07 10:51:09", "2014-04-07T10:51:09.5", "2014-04-07", "09:00:00Z", ""]
    second = datetime(2014, 4, 7, 10, 51, 9, tzinfo=UTC)
    assert pl.DataFrame({"text": texts}).select(iso_time(pl.col("text"))).to_series().to_list() == [
        second.replace(microsecond=277_000),
        second,
        second.replace(microsecond=500_000),
        None,
        None,
        None,
    ]


def test_out_of_range_excludes_the_latest_time() -> None:
    times = [datetime(year, 1, 1, tzinfo=UTC) for year in (1989, 1990, 2099, 2100)]
    frame = pl.DataFrame({"ts": times}, schema={"ts": pl.Datetime("us", "UTC")})
    assert frame.select(out_of_range(pl.col("ts"))).to_series().to_list() == [True, False, False, True]
