"""Finding raw files: folders, globs, names, twins."""

from __future__ import annotations

import gzip
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.events.ingestion import ingest
from multitron_core.events.raw_files import RawFile, find_raw_files
from multitron_core.events.raw_source import RawSource
from multitron_core.events.read import read_events
from multitron_core.lake.lake import Lake
from multitron_core.sessions.prepare import prepare_sessions

ROLES = {"clicks": "clicks", "orders": "buys"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b/clicks.dat", "b/buys.dat", "a/clicks.dat.gz", "clicks-1.dat", "README.md", "deep/er/clicks.dat"):
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "raw"


def names(location: object, root: str | None = None) -> dict[str, list[str]]:
    found = find_raw_files(location, ROLES, format="yoochoose", root=root)  # type: ignore[arg-type]
    return {role: [file.name for file in files] for role, files in found.items()}


def test_a_folder_is_taken_without_its_subfolders(folder: Path) -> None:
    for location in (folder, str(folder), "raw", "./raw", "./raw/"):
        assert names(location) == {"clicks": ["clicks-1.dat"], "orders": []}
    assert names("raw/b") == {"clicks": ["clicks.dat"], "orders": ["buys.dat"]}


def test_a_glob_names_files_by_what_follows_its_fixed_part(folder: Path) -> None:
    assert names(f"{folder}/*/*.dat*") == {"clicks": ["a/clicks.dat.gz", "b/clicks.dat"], "orders": ["b/buys.dat"]}
    assert names("./raw/**/clicks*")["clicks"] == [
        "a/clicks.dat.gz", "b/clicks.dat", "clicks-1.dat", "deep/er/clicks.dat",
    ]  # fmt: skip
    assert names("raw/b/*", root="raw") == {"clicks": ["b/clicks.dat"], "orders": ["b/buys.dat"]}


def test_a_file_and_several_locations(folder: Path) -> None:
    assert names(folder / "clicks-1.dat") == {"clicks": ["clicks-1.dat"], "orders": []}
    assert names([folder / "clicks-1.dat", folder / "b", folder / "b/clicks.dat"]) == {
        "clicks": ["clicks-1.dat", "clicks.dat"],
        "orders": ["buys.dat"],
    }
    assert find_raw_files("raw/b", ROLES, format="yoochoose")["orders"] == [RawFile("buys.dat", "raw/b/buys.dat")]


def test_nothing_to_read_is_an_error(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="no file to read"):
        names(folder / "empty")
    with pytest.raises(InputError, match=r"no such file or folder.*nowhere"):
        names(folder / "nowhere")
    with pytest.raises(InputError, match="no file to read"):
        names(f"{folder}/*.parquet")
    with pytest.raises(InputError, match=r"named like yoochoose.*deep.*clicks or buys|clicks or buys"):
        names(folder / "README.md")


def test_missing_orders_and_twins_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no file of orders.*buys.*orders_required=False"):
        read_events(folder, "yoochoose")
    read_events(folder, "yoochoose", orders_required=False)
    with pytest.raises(InputError, match="no file of clicks"):
        read_events(folder / "b/buys.dat", "yoochoose", orders_required=False)
    (folder / "b/clicks.dat.gz").write_text("")
    with pytest.raises(InputError, match=r"there twice.*clicks.dat.*clicks.dat.gz"):
        read_events(folder / "b", "yoochoose")
    with pytest.raises(InputError, match=r"unknown format.*ottto.*diginetica, otto, table, yoochoose"):
        read_events(folder, "ottto")


def test_lines_are_counted_in_each_file(tmp_path: Path) -> None:
    line = "1,2014-04-07T10:51:09.277Z,7,0\n"
    (tmp_path / "clicks-a.dat").write_text(2 * line + "x\n" + line)
    (tmp_path / "clicks-b.dat").write_text("\n" + line)
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


def test_a_damaged_compressed_file_is_an_error_of_the_input(tmp_path: Path) -> None:
    whole = gzip.compress(b"1,2014-04-07T10:51:09.277Z,7,0\n" * 1000)
    (tmp_path / "clicks.dat.gz").write_bytes(whole[:-9])
    log = read_events(tmp_path, "yoochoose", orders_required=False)
    with pytest.raises(InputError, match=r"cannot be read.*gzip -t"):
        prepare_sessions(log, "yoochoose")
    source = RawSource(str(tmp_path), "yoochoose", orders_required=False)
    with pytest.raises(InputError, match=r"cannot be read.*gzip -t"):
        ingest(source, Lake(tmp_path / "lake"), date(2014, 4, 7), date(2014, 4, 7))
    assert not (tmp_path / "lake").exists()
