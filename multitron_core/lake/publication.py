"""Publish partitions: make nights visible to readers after they were written and checked.

Publishing commits a row to the table `published`. The row stores the Delta version that was checked and the checksum of
its files. Therefore "latest" means the latest published night, and a partition that is written again stays invisible
until it is published again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

import polars as pl
from deltalake import DeltaTable

from multitron_core.errors import InputError
from multitron_core.lake import delta_stream
from multitron_core.lake.contracts import PUBLISHED
from multitron_core.lake.partition_files import partition_files
from multitron_core.lake.replace_where import checked_date
from multitron_core.lake.tables import Tables
from multitron_core.preference.keys import pi_key


@dataclass(frozen=True)
class Publication:
    """A row of the table `published`: one partition of one table at the version that was checked."""

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
    tables: Tables, run_date: date | str, pi: str, *, table: str = "recommendations", delta_version: int | None = None
) -> Publication:
    """Publish a partition at a Delta version.

    Args:
        tables: Where the tables are.
        run_date, pi: Partition to publish.
        table: Table of the partition.
        delta_version: Version that was checked (`PartitionCommit.delta_version`); None for the newest.

    Returns:
        The row of `published`.

    Raises:
        InputError: The partition does not exist at that version.
    """
    return publish_night(tables, run_date, pi, {table: delta_version})[0]


def publish_night(
    tables: Tables, run_date: date | str, pi: str, versions: Mapping[str, int | None]
) -> list[Publication]:
    """Publish the partitions of several tables in one commit, so that readers see all of them or none.

    Args:
        tables: Where the tables are.
        run_date, pi: Partition to publish.
        versions: For each table the version that was checked, None for the newest.

    Returns:
        The rows of `published`, in the order of `versions`.

    Raises:
        InputError: A partition does not exist at its version; nothing is published.
    """
    run_date, pi = checked_date(run_date), pi_key(pi)
    published = [_describe(tables, run_date, pi, table, version) for table, version in versions.items()]
    rows = pl.DataFrame([vars(row) for row in published], schema=published_schema(tables))
    names = ", ".join(f"'{table}'" for table in versions)
    delta_stream.replace(
        lambda: tables.open(PUBLISHED),
        lambda: [rows],
        rows.schema,
        repeatable=True,
        predicate=f"run_date = '{run_date.isoformat()}' AND pi = '{pi}' AND table_name IN ({names})",
        metadata={"run_date": run_date.isoformat(), "pi": pi, "tables": names},
    )
    return published


def _describe(tables: Tables, run_date: date, pi: str, table: str, delta_version: int | None) -> Publication:
    """The row of `published` for a partition at a version."""
    opened = tables.open(table, delta_version)
    files = partition_files(opened).filter(run_date=run_date, pi=pi)
    if files.is_empty():
        raise InputError(
            "there is nothing to publish",
            where=f"{opened.table_uri} at version {opened.version()}",
            found={"run_date": run_date.isoformat(), "pi": pi},
            hint="score this partition first",
        )
    # Every list has exactly one row of rank 1.
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


def published_schema(tables: Tables) -> pl.Schema:
    """The polars schema of the table `published`."""
    return pl.scan_delta(tables.open(PUBLISHED)).collect_schema()


def publications(tables: Tables, table: str | None = None) -> pl.DataFrame:
    """Rows of `published`, for one table or all, newest night first."""
    rows = pl.scan_delta(tables.open(PUBLISHED))
    if table is not None:
        rows = rows.filter(pl.col("table_name") == table)
    return rows.sort(["run_date", "table_name", "pi"], descending=[True, False, False]).collect()


def checksum(files: pl.DataFrame) -> str:
    """SHA-256 over names, sizes and row counts of a partition's files; Delta never changes a written file.

    Args:
        files: What `partition_files` returns for the partition.
    """
    lines = files.sort("path").select(pl.format("{} {} {}\n", "path", "bytes", "rows")).to_series()
    return hashlib.sha256("".join(lines.to_list()).encode()).hexdigest()


def published_night(tables: Tables, table: str, pi: str, run_date: date | None) -> tuple[DeltaTable, date]:
    """Open the table at the version to read for a published night.

    Args:
        tables: Where the tables are.
        table: Table to read.
        pi: Key of the preference.
        run_date: The night; None for the latest published night.

    Returns:
        The open table and the date of the night.

    Raises:
        InputError: The night is not published for this preference, or its rows no longer exist.
    """
    tables.open(table)  # a missing table is another error than an unpublished night
    rows = publications(tables, table)
    of_pi, preferences = rows.filter(pi=pi), rows["pi"].unique().sort().to_list()
    row = of_pi if run_date is None else of_pi.filter(run_date=run_date)
    if row.is_empty():
        nights = ", ".join(str(night) for night in of_pi["run_date"].head(10).to_list()) or "none"
        raise InputError(
            "this night is not published",
            where=tables.uri(table),
            found={"run_date": "latest" if run_date is None else run_date.isoformat(), "pi": pi},
            hint=f"published for pi {pi}: {nights}; published preferences: {', '.join(preferences) or 'none'}; "
            "pass unpublished=True to read unpublished rows",
        )
    night, version, expected = row.select("run_date", "delta_version", "checksum").row(0)
    # Prefer the newest version while it still has the published files: the log entry of the pinned one may expire.
    for opened in (tables.open(table), tables.open(table, version)):
        if checksum(partition_files(opened).filter(run_date=night, pi=pi)) == expected:
            return opened, night
    raise InputError(
        "the published rows no longer exist",
        where=f"{tables.uri(table)} at version {version}",
        found={"run_date": night.isoformat(), "pi": pi},
        hint="publish the partition again",
    )


def replaced_publications(tables: Tables, table: str) -> list[tuple[date, str, int | None]]:
    """Published partitions of a table that were written again after they were published.

    Returns:
        run_date, pi and the published version of each; the version is None if it has expired from the log.
    """
    live = partition_files(tables.open(table))
    replaced: list[tuple[date, str, int | None]] = []
    for row in publications(tables, table).iter_rows(named=True):
        if checksum(live.filter(run_date=row["run_date"], pi=row["pi"])) == row["checksum"]:
            continue
        try:
            version = tables.open(table, row["delta_version"]).version()
        except InputError:
            replaced.append((row["run_date"], row["pi"], None))
        else:
            replaced.append((row["run_date"], row["pi"], version))
    return replaced
