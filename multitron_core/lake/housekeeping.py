"""Keeping house: old nights go, replaced files go, the log is checkpointed, and the sizes are told.

Nights go from the tables (`keep_house`) and from the local folders that they were made from (`delete_night_files`).

What is young is never touched: a file younger than the table's `delta.deletedFileRetentionDuration` (a week) may belong
to a reader that still holds an older version, or to a writer that has not committed yet.

There is no compaction. A partition is one commit of files of about 100 MB, so there is nothing to gain, and a
compaction would replace the files that `published` pins.
"""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from multitron_core.errors import InputError, UnavailableError
from multitron_core.lake import replace_where
from multitron_core.lake.contracts import PUBLISHED, contracts
from multitron_core.lake.publication import publications, replaced_publications

if TYPE_CHECKING:
    from multitron_core.lake.lake import Lake

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


@dataclass(frozen=True)
class DeletedFiles:
    """What was deleted of local files."""

    nights: tuple[date, ...]
    bytes: int


def apply_retention(
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
    first_kept = _first_kept(days, today, file_retention_hours)
    latest = publications(lake).group_by("table_name", "pi").agg(pl.col("run_date").max()).rows()
    tables = [name for name, contract in contracts(pl.Int64).items() if "run_date" in contract.partition_by]
    tables.sort(key=lambda name: name != PUBLISHED)
    return [_keep(lake, table, first_kept, latest, file_retention_hours) for table in tables if lake.exists(table)]


def delete_night_files(
    folders: Iterable[Path],
    *,
    days: int,
    kept: Collection[date] = (),
    today: date | None = None,
    file_retention_hours: int = FILE_RETENTION_HOURS,
) -> DeletedFiles:
    """Delete what the nights that are `days` or more old have left in local folders.

    A night goes whole, and only when nothing of it is young: it may be under way once more, and a folder that was
    swapped out (see `swapped_folder`) has readers for as long as the link to the next one is young.

    Args:
        folders: they hold files, folders and links that are named by their night: `2026-01-08`, `2026-01-08.parquet`;
            whatever is named otherwise stays.
        days: nights that are kept, today's included.
        kept: older nights that are kept too.
        today: None for today (UTC).
        file_retention_hours: age from which something is not young any more, a day at the least.

    Returns:
        The nights that are gone, and their size.

    Raises:
        InputError: days below 1, or a file retention below 24 hours.
    """
    first_kept = _first_kept(days, today, file_retention_hours)
    paths = defaultdict[date, list[Path]](list)
    for path in (path for folder in folders if folder.is_dir() for path in folder.iterdir()):
        try:
            night = date.fromisoformat(path.name.removeprefix(".").split(".")[0])
        except ValueError:
            continue
        if night < first_kept and night not in kept:
            paths[night].append(path)
    young = time.time() - file_retention_hours * 3600
    old = {night: each for night, each in paths.items() if max(path.lstat().st_mtime for path in each) < young}
    # The link goes first: who comes now finds no night instead of half of one.
    links_first = sorted((path for each in old.values() for path in each), key=lambda path: not path.is_symlink())
    return DeletedFiles(tuple(sorted(old)), sum(_delete_path(path) for path in links_first))


def _delete_path(path: Path) -> int:
    """Delete a link, a file or a whole folder; returns the bytes of its files."""
    if path.is_symlink():
        path.unlink()
        return 0
    if path.is_dir():
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        shutil.rmtree(path)
        return size
    size = path.stat().st_size
    path.unlink()
    return size


def _first_kept(days: int, today: date | None, file_retention_hours: int) -> date:
    """The oldest night that is not old.

    Raises:
        InputError: no night would be kept, or files of running jobs could be removed.
    """
    if days < 1:
        raise InputError("no night would be kept", where="days", found=days, hint="keep at least 1")
    if file_retention_hours < 24:
        raise InputError(
            "files of running jobs could be removed",
            where="file_retention_hours",
            found=file_retention_hours,
            hint="keep replaced files for at least 24 hours",
        )
    return (today or datetime.now(UTC).date()) - timedelta(days=days - 1)


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
            predicate += f" AND NOT ({replace_where.predicate(kept)})"
    return predicate


def _delete(table: DeltaTable, predicate: str) -> None:
    try:
        table.delete(predicate)
    except CommitFailedError as error:
        raise UnavailableError(
            "old nights could not be deleted while others wrote",
            where=table.table_uri,
            found=str(error),
            hint="run this again; nothing was deleted",
        ) from error


def _nights(table: DeltaTable) -> list[date]:
    """The nights of a table, from its log."""
    files = pl.DataFrame(table.get_add_actions(flatten=True))
    return files["partition.run_date"].unique().sort().to_list() if len(files) else []
