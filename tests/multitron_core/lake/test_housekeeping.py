"""Retention: old nights are deleted, the latest stays, young files and published versions are kept."""

from __future__ import annotations

import os
import re
import time
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.lake.housekeeping import DeletedFiles, Housekeeping, apply_retention, delete_night_files
from multitron_core.lake.lake import Lake
from multitron_core.utils.atomic_folder import atomic_folder

JANUARY = [date(2026, 1, day) for day in range(1, 11)]
TODAY = JANUARY[-1]


def write(lake: Lake, night: date, score: float = 1.0, pi: str = "0.50", *, publish: bool = True) -> None:
    """Write a partition of one row and publish it."""
    frame = pl.DataFrame({"session_id": ["a"], "rank": [1], "item_id": [1], "score": [score]})
    lake.replace_partition(night, pi, [frame], model_version="7", k=1)
    if publish:
        lake.publish(night, pi)


def parquet_files(lake: Lake) -> list[Path]:
    return sorted(Path(lake.uri("recommendations")).rglob("*.parquet"))


def age(files: list[Path], days: float) -> None:
    """Set the times of files to `days` ago."""
    when = time.time() - days * 86_400
    for file in files:
        os.utime(file, (when, when), follow_symlinks=False)


def report_of(lake: Lake, *, days: int) -> dict[str, Housekeeping]:
    """Reports of `apply_retention` by table."""
    return {report.table: report for report in apply_retention(lake, days=days, today=TODAY)}


def test_apply_retention_deletes_old_nights(lake: Lake) -> None:
    for night in JANUARY:
        write(lake, night)
    reports = report_of(lake, days=3)
    kept = JANUARY[-3:]
    assert lake.partitions()["run_date"].to_list() == kept[::-1]
    assert lake.publications()["run_date"].to_list() == kept[::-1]
    report = reports["recommendations"]
    assert report.deleted_nights == tuple(JANUARY[:-3])
    assert (report.nights, report.oldest_night, report.rows, report.files, report.small_files) == (3, kept[0], 3, 3, 3)
    assert report.bytes == sum(lake.partitions()["bytes"])
    assert reports["published"].deleted_nights == tuple(JANUARY[:-3])
    assert report_of(lake, days=3)["recommendations"].deleted_nights == ()


def test_apply_retention_keeps_the_latest_published_night(lake: Lake) -> None:
    write(lake, JANUARY[0], pi="0.00")
    write(lake, JANUARY[1], pi="0.00")
    write(lake, TODAY, pi="0.50")
    report_of(lake, days=2)
    assert lake.partitions().select("run_date", "pi").rows() == [(TODAY, "0.50"), (JANUARY[1], "0.00")]
    assert len(lake.read_recommendations("0.00")) == 1


def test_apply_retention_keeps_young_replaced_files(lake: Lake) -> None:
    write(lake, TODAY, 1.0, publish=False)
    write(lake, TODAY, 2.0, publish=False)
    assert report_of(lake, days=30)["recommendations"].vacuumed_files == 0
    assert len(parquet_files(lake)) == 3  # two of data, one checkpoint


def test_apply_retention_removes_files_of_killed_writers(lake: Lake) -> None:
    write(lake, TODAY)
    folder = Path(lake.uri("recommendations")) / f"run_date={TODAY}" / "pi=0.50"
    left, in_flight = folder / "part-left-behind.parquet", folder / "part-in-flight.parquet"
    for file in (left, in_flight):
        file.write_bytes(b"half a file")
    age([left], days=8)
    report = report_of(lake, days=30)["recommendations"]
    assert report.vacuumed_files == 1
    assert not left.exists()
    assert in_flight.exists()
    assert len(lake.read_recommendations("0.50")) == 1


def age_everything(lake: Lake, days: float) -> None:
    """Set the times of the files, and of their replacement in the log, to `days` ago."""
    age(parquet_files(lake), days)
    then = int((time.time() - days * 86_400) * 1000)
    for commit in (Path(lake.uri("recommendations")) / "_delta_log").glob("*.json"):
        commit.write_text(re.sub(r'"deletionTimestamp":\d+', f'"deletionTimestamp":{then}', commit.read_text()))


def test_apply_retention_keeps_published_versions(lake: Lake) -> None:
    write(lake, TODAY, 1.0)
    write(lake, TODAY, 2.0, publish=False)
    write(lake, TODAY, 3.0, publish=False)
    age_everything(lake, days=8)
    report = report_of(lake, days=30)["recommendations"]
    assert (report.vacuumed_files, report.unreadable) == (1, ())
    assert lake.read_recommendations("0.50")["score"].to_list() == [1.0]
    assert lake.read_recommendations("0.50", unpublished=True)["score"].to_list() == [3.0]


def test_apply_retention_reports_expired_versions(lake: Lake) -> None:
    write(lake, TODAY, 1.0)
    write(lake, TODAY, 2.0, publish=False)
    report_of(lake, days=30)  # makes a checkpoint
    (Path(lake.uri("recommendations")) / "_delta_log" / f"{1:020d}.json").unlink()
    assert report_of(lake, days=30)["recommendations"].unreadable == ((TODAY, "0.50"),)


def test_apply_retention_writes_a_checkpoint(lake: Lake) -> None:
    write(lake, TODAY)
    report = report_of(lake, days=30)["recommendations"]
    log = Path(lake.uri("recommendations")) / "_delta_log"
    assert (log / f"{report.delta_version:020d}.checkpoint.parquet").exists()


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    """A folder of two old nights and today's, written eight days ago."""
    folder = tmp_path / "sessions"
    for night in (JANUARY[0], JANUARY[1], TODAY):
        for _ in range(2):  # prepared twice: a link, two folders and a lock
            with atomic_folder(folder / str(night)) as new:
                (new / "items.npy").write_bytes(b"12345")
        (folder / f"{night}.parquet").write_bytes(b"123")
    age(list(folder.iterdir()), days=8)
    return folder


def nights_in(folder: Path) -> list[date]:
    """Nights that have entries in a folder."""
    return sorted({date.fromisoformat(path.name.strip(".")[:10]) for path in folder.iterdir()})


def test_delete_night_files_deletes_all_of_a_night(sessions: Path, tmp_path: Path) -> None:
    folders = [sessions, tmp_path / "missing"]
    deleted = delete_night_files(folders, days=3, kept=[JANUARY[1]], today=TODAY)
    assert deleted == DeletedFiles((JANUARY[0],), 2 * 5 + 3)
    assert nights_in(sessions) == [JANUARY[1], TODAY]
    assert (sessions / str(TODAY) / "items.npy").read_bytes() == b"12345"
    assert delete_night_files(folders, days=3, kept=[JANUARY[1]], today=TODAY) == DeletedFiles((), 0)


def test_delete_night_files_keeps_nights_with_young_files(sessions: Path) -> None:
    age([sessions / str(JANUARY[0])], days=6)  # the link was replaced then; the previous folder may have readers
    assert delete_night_files([sessions], days=3, today=TODAY).nights == (JANUARY[1],)
    assert len([path for path in sessions.iterdir() if str(JANUARY[0]) in path.name]) == 5


def test_delete_night_files_keeps_other_names(sessions: Path) -> None:
    others = [sessions / name for name in ("2026-01-01-mine", "2026-01", "notes.txt")]
    for other in others:
        other.touch()
    age(others, days=400)
    delete_night_files([sessions], days=1, today=TODAY)
    assert all(other.exists() for other in others)


@pytest.mark.parametrize(
    ("days", "file_retention_hours", "message"), [(0, 24, "no night would be kept"), (1, 1, "at least 24 hours")]
)
def test_apply_retention_and_delete_night_files_refuse(
    lake: Lake, tmp_path: Path, days: int, file_retention_hours: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        apply_retention(lake, days=days, file_retention_hours=file_retention_hours)
    with pytest.raises(InputError, match=message):
        delete_night_files([tmp_path], days=days, file_retention_hours=file_retention_hours)
