"""What has been published: the nights that were written, checked and released to the readers.

A row of `published` is committed after the data and its checks. It pins the Delta version that was checked and the
fingerprint of its files, so that "latest" means the latest published night, and a partition that is written again
stays unseen until it is published again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import polars as pl
from deltalake import DeltaTable

from multitron_core.errors import InputError
from multitron_core.lake import delta_stream
from multitron_core.lake.contracts import PUBLISHED
from multitron_core.lake.partition_files import partition_files
from multitron_core.lake.replace_where import checked_date
from multitron_core.preference.keys import pi_key

if TYPE_CHECKING:
    from multitron_core.lake.lake import Lake


@dataclass(frozen=True)
class Publication:
    """A row of `published`: one partition of one table, as it was checked."""

    table_name: str
    run_date: date
    pi: str
    model_version: str
    delta_version: int
    rows: int
    lists: int
    checksum: str
    published_at: datetime


def publish(
    lake: Lake, run_date: date | str, pi: str, *, table: str = "recommendations", delta_version: int | None = None
) -> Publication:
    """Release a partition to the readers, as it stands at a Delta version.

    Args:
        lake: the lake.
        run_date, pi: the partition.
        table: its table.
        delta_version: the version that was checked (`PartitionCommit.delta_version`); None takes the newest.

    Raises:
        InputError: the partition is not there at that version.
    """
    return publish_night(lake, run_date, pi, {table: delta_version})[0]


def publish_night(lake: Lake, run_date: date | str, pi: str, versions: Mapping[str, int | None]) -> list[Publication]:
    """Release the partitions of several tables in one commit: readers find all of them or none.

    Args:
        lake: the lake.
        run_date, pi: the partition.
        versions: table -> the version that was checked, None for the newest.

    Raises:
        InputError: a partition is not there at its version; nothing is released then.
    """
    run_date, pi = checked_date(run_date), pi_key(pi)
    released = [_described(lake, run_date, pi, table, version) for table, version in versions.items()]
    rows = pl.DataFrame([vars(row) for row in released], schema=published_schema(lake))
    tables = ", ".join(f"'{table}'" for table in versions)
    delta_stream.replace(
        lambda: lake.open(PUBLISHED),
        lambda: [rows],
        rows.schema,
        repeatable=True,
        predicate=f"run_date = '{run_date.isoformat()}' AND pi = '{pi}' AND table_name IN ({tables})",
        metadata={"run_date": run_date.isoformat(), "pi": pi, "tables": tables},
    )
    return released


def _described(lake: Lake, run_date: date, pi: str, table: str, delta_version: int | None) -> Publication:
    """A partition as it stands at a version."""
    opened = lake.open(table, delta_version)
    files = partition_files(opened).filter(run_date=run_date, pi=pi)
    if files.is_empty():
        raise InputError(
            "there is nothing to publish",
            where=f"{opened.table_uri} at version {opened.version()}",
            found={"run_date": run_date.isoformat(), "pi": pi},
            hint="score this partition first",
        )
    # Every list has exactly one first place.
    first = pl.scan_delta(opened).filter(pl.col("run_date") == run_date, pl.col("pi") == pi, pl.col("rank") == 1)
    return Publication(
        table_name=table,
        run_date=run_date,
        pi=pi,
        model_version=files["model_version"][0],
        delta_version=opened.version(),
        rows=int(files["rows"].sum()),
        lists=first.select(pl.len()).collect().item(),
        checksum=checksum(files),
        published_at=datetime.now(UTC),
    )


def published_schema(lake: Lake) -> pl.Schema:
    """The columns of `published`, as polars reads them."""
    return pl.scan_delta(lake.open(PUBLISHED)).collect_schema()


def publications(lake: Lake, table: str | None = None) -> pl.DataFrame:
    """The rows of `published`, of one table or of all, the newest night first."""
    rows = pl.scan_delta(lake.open(PUBLISHED))
    if table is not None:
        rows = rows.filter(pl.col("table_name") == table)
    return rows.sort(["run_date", "table_name", "pi"], descending=[True, False, False]).collect()


def checksum(files: pl.DataFrame) -> str:
    """SHA-256 over the names, sizes and rows of a partition's files, which Delta never changes once written."""
    lines = files.sort("path").select(pl.format("{} {} {}\n", "path", "bytes", "rows")).to_series()
    return hashlib.sha256("".join(lines.to_list()).encode()).hexdigest()


def published_night(lake: Lake, table: str, pi: str, run_date: date | None) -> tuple[DeltaTable, date]:
    """The table at the version to read for a published night.

    Args:
        lake: the lake.
        table: the table to read.
        pi: the preference.
        run_date: the night, None for the latest one published.

    Raises:
        InputError: that night is not published for this preference, or is gone.
    """
    lake.open(table)  # a table that is not there is another error than a night that is not published
    rows = publications(lake, table)
    mine, preferences = rows.filter(pi=pi), rows["pi"].unique().sort().to_list()
    row = mine if run_date is None else mine.filter(run_date=run_date)
    if row.is_empty():
        nights = ", ".join(str(night) for night in mine["run_date"].head(10).to_list()) or "none"
        raise InputError(
            "this night is not published",
            where=lake.uri(table),
            found={"run_date": "latest" if run_date is None else run_date.isoformat(), "pi": pi},
            hint=f"published for pi {pi}: {nights}; published preferences: {', '.join(preferences) or 'none'}; "
            "what is not published is read with unpublished=True",
        )
    night, version, expected = row.select("run_date", "delta_version", "checksum").row(0)
    # The newest version serves as long as it still has the published files; the pinned one may outlive its log.
    for opened in (lake.open(table), lake.open(table, version)):
        if checksum(partition_files(opened).filter(run_date=night, pi=pi)) == expected:
            return opened, night
    raise InputError(
        "the published rows are gone",
        where=f"{lake.uri(table)} at version {version}",
        found={"run_date": night.isoformat(), "pi": pi},
        hint="publish the partition again",
    )


def replaced_publications(lake: Lake, table: str) -> list[tuple[date, str, int | None]]:
    """Published partitions that were written again since: run_date, pi, and the version that still has their rows.

    The version is None where it has expired from the log.
    """
    live = partition_files(lake.open(table))
    replaced: list[tuple[date, str, int | None]] = []
    for row in publications(lake, table).iter_rows(named=True):
        if checksum(live.filter(run_date=row["run_date"], pi=row["pi"])) == row["checksum"]:
            continue
        try:
            version = lake.open(table, row["delta_version"]).version()
        except InputError:
            replaced.append((row["run_date"], row["pi"], None))
        else:
            replaced.append((row["run_date"], row["pi"], version))
    return replaced
