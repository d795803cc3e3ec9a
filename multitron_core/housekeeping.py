"""Keeping house: old nights go, replaced files go, the log is checkpointed, and the sizes are told.

What is young is never touched: a file younger than the table's `delta.deletedFileRetentionDuration` (a week) may belong
to a reader that still holds an older version, or to a writer that has not committed yet.

There is no compaction. A partition is one commit of files of about 100 MB, so there is nothing to gain, and a
compaction would replace the files that `published` pins.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from multitron_core import keyed_rows
from multitron_core.errors import InputError, UnavailableError
from multitron_core.publication import publications, replaced_publications
from multitron_core.table_contracts import PUBLISHED, contracts

if TYPE_CHECKING:
    from multitron_core.lake import Lake

FILE_RETENTION_HOURS = 7 * 24
SMALL_FILE_BYTES = 1_000_000


@dataclass(frozen=True)
class Housekeeping:
    """What was done to a table, and how it stands now."""

    table: str
    deleted_nights: tuple[date, ...]
    vacuumed_files: int
    nights: int
    oldest_night: date | None
    rows: int
    files: int
    small_files: int  # below 1 MB: many of them make reading slow
    bytes: int
    delta_version: int  # checkpointed
    unreadable: tuple[tuple[date, str], ...]  # published partitions that were replaced, and whose version has expired


def keep_house(
    lake: Lake, *, days: int, today: date | None = None, file_retention_hours: int = FILE_RETENTION_HOURS
) -> list[Housekeeping]:
    """Delete the nights that are `days` or more old, then the files that no reader can need any more.

    A night leaves `published` first, so that nobody is sent to rows that are about to go. The latest published night of
    a preference always stays, however old it is: a shop whose nights have stopped still has something to show.

    Args:
        lake: the lake.
        days: nights that are kept, today's included.
        today: None for today (UTC).
        file_retention_hours: age from which files that are not live any more are removed, a day at the least.

    Returns:
        One report a table.

    Raises:
        InputError: days below 1, or a file retention below 24 hours.
    """
    if days < 1:
        raise InputError("no night would be kept", where="days", found=days, mend="keep at least 1")
    if file_retention_hours < 24:
        raise InputError(
            "files of running jobs could be removed",
            where="file_retention_hours",
            found=file_retention_hours,
            mend="keep replaced files for at least 24 hours",
        )
    first_kept = (today or datetime.now(UTC).date()) - timedelta(days=days - 1)
    latest = publications(lake).group_by("table_name", "pi").agg(pl.col("run_date").max()).rows()
    tables = [name for name, contract in contracts(pl.Int64).items() if "run_date" in contract.partition_by]
    tables.sort(key=lambda name: name != PUBLISHED)
    return [_keep(lake, table, first_kept, latest, file_retention_hours) for table in tables if lake.exists(table)]


def _keep(
    lake: Lake, table: str, first_kept: date, latest: list[tuple[str, str, date]], file_retention_hours: int
) -> Housekeeping:
    opened = lake.open(table)
    before = _nights(opened)
    if any(night < first_kept for night in before):
        _delete(opened, _old_nights(table, first_kept, latest))
    replaced = [] if table == PUBLISHED else replaced_publications(lake, table)
    removed = lake.open(table).vacuum(
        retention_hours=file_retention_hours,
        dry_run=False,
        enforce_retention_duration=False,  # keep_house has its own limit
        full=True,  # also what killed writers have left
        keep_versions=sorted({version for _, _, version in replaced if version is not None}) or None,
    )
    opened = lake.open(table)
    opened.create_checkpoint()
    opened.cleanup_metadata()
    after = _nights(opened)
    files = pl.DataFrame(opened.get_add_actions(flatten=True))
    return Housekeeping(
        table=table,
        deleted_nights=tuple(sorted(set(before) - set(after))),
        vacuumed_files=len(removed),
        nights=len(after),
        oldest_night=min(after, default=None),
        rows=int(files["num_records"].sum()) if len(files) else 0,
        files=len(files),
        small_files=int((files["size_bytes"] < SMALL_FILE_BYTES).sum()) if len(files) else 0,
        bytes=int(files["size_bytes"].sum()) if len(files) else 0,
        delta_version=opened.version(),
        unreadable=tuple((night, pi) for night, pi, version in replaced if version is None),
    )


def _old_nights(table: str, first_kept: date, latest: list[tuple[str, str, date]]) -> str:
    """The nights to delete, as SQL; what is the latest published of a preference is left out."""
    predicate = f"run_date < '{first_kept.isoformat()}'"
    for name, pi, night in latest:
        if night < first_kept and table in (PUBLISHED, name):
            kept: dict[str, date | str] = {"run_date": night, "pi": pi}
            if table == PUBLISHED:
                kept["table_name"] = name
            predicate += f" AND NOT ({keyed_rows.predicate(kept)})"
    return predicate


def _delete(table: DeltaTable, predicate: str) -> None:
    try:
        table.delete(predicate)
    except CommitFailedError as error:
        raise UnavailableError(
            "old nights could not be deleted while others wrote",
            where=table.table_uri,
            found=str(error),
            mend="run this again; nothing was deleted",
        ) from error


def _nights(table: DeltaTable) -> list[date]:
    """The nights of a table, from its log."""
    files = pl.DataFrame(table.get_add_actions(flatten=True))
    return files["partition.run_date"].unique().sort().to_list() if len(files) else []
