"""Files and partitions as the Delta log describes them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl

from multitron_core.lake.lake import Lake
from multitron_core.lake.partition_files import partition_files, partitions

MONDAY, TUESDAY = date(2026, 1, 5), date(2026, 1, 6)


def write(lake: Lake, night: date, pi: str, sessions: int, model_version: str) -> None:
    """Write lists of one item."""
    rows = [(f"s{session:03d}", 1, 1, 1.0) for session in range(sessions)]
    frame = pl.DataFrame(rows, schema=["session_id", "rank", "item_id", "score"], orient="row")
    lake.replace_partition(night, pi, [frame], model_version=model_version, k=1)


def test_partition_files_lists_live_files(lake: Lake) -> None:
    write(lake, MONDAY, "0.50", 3, "6")
    write(lake, MONDAY, "0.50", 5, "7")
    files = partition_files(lake.open("recommendations"))
    path = Path(lake.uri("recommendations")) / files["path"].item()
    assert files.drop("path").rows() == [(MONDAY, "0.50", 5, path.stat().st_size, "7")]


def test_partitions_are_sorted_newest_first(lake: Lake) -> None:
    for night, pi, sessions in ((MONDAY, "0.50", 1), (TUESDAY, "0.50", 2), (TUESDAY, "0.00", 3)):
        write(lake, night, pi, sessions, "7")
    found = partitions(lake.open("recommendations"))
    assert found.select("run_date", "pi", "rows", "files", "model_version").rows() == [
        (TUESDAY, "0.00", 3, 1, "7"),
        (TUESDAY, "0.50", 2, 1, "7"),
        (MONDAY, "0.50", 1, 1, "7"),
    ]


def test_partitions_of_an_empty_table(lake: Lake) -> None:
    assert lake.partitions().is_empty()
    assert lake.partitions().columns == ["run_date", "pi", "rows", "files", "bytes", "model_version"]
