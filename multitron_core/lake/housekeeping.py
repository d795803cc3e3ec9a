"""Retention: delete old nights, vacuum replaced files, checkpoint the log, report sizes.

`apply_retention` deletes nights from the tables, `delete_night_files` from the local folders of their inputs.

Files younger than a week (`FILE_RETENTION_HOURS`) are never deleted: a reader may still use an older version of the
table, or a writer may not have committed yet.

Tables are not compacted. A partition is one commit with files of about 100 MB, so compaction would gain nothing, and it
would replace the files whose checksum `published` stores.
"""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from multitron_core.errors import InputError, UnavailableError
from multitron_core.lake import replace_where
from multitron_core.lake.contracts import PUBLISHED, table_contracts
from multitron_core.lake.publication import publications, replaced_publications
from multitron_core.lake.tables import Tables

FILE_RETENTION_HOURS = 7 * 24
"""Age in hours below which files are never deleted; Delta's default `delta.deletedFileRetentionDuration`."""
SMALL_FILE_BYTES = 1_000_000
"""Size in bytes below which a data file counts as small."""


@dataclass(frozen=True)
class Housekeeping:
    """What was deleted from a table, and its state afterwards."""

    table: str
    deleted_nights: tuple[date, ...]
    vacuumed_files: int
    nights: int
    oldest_night: date | None
    rows: int
    files: int
    small_files: int  # below 1 MB; many of them slow down reads
    bytes: int
    delta_version: int  # version of the checkpoint
    unreadable: tuple[tuple[date, str], ...]  # published (night, pi) that were replaced and whose version has expired


@dataclass(frozen=True)
class DeletedFiles:
    """What was deleted from local folders."""

    nights: tuple[date, ...]
    bytes: int  # size of the deleted files


def apply_retention(
    tables: Tables, *, days: int, today: date | None = None, file_retention_hours: int = FILE_RETENTION_HOURS
) -> list[Housekeeping]:
    """Delete nights that are `days` or more old from the tables, then the files that no reader can need.

    A night is deleted from `published` first, so that no reader is directed to rows that are being deleted. The latest
    published night of each preference is kept at any age, so that a shop whose nights have stopped can still show
    recommendations.

    Args:
        tables: Where the tables are.
        days: Number of nights to keep, including today's.
        today: None for today (UTC).
        file_retention_hours: Minimum age of the replaced files that are deleted; at least 24.

    Returns:
        One report per table.

    Raises:
        InputError: `days` is below 1, or `file_retention_hours` is below 24.
    """
    first_kept = _first_kept(days, today, file_retention_hours)
    latest = publications(tables).group_by("table_name", "pi").agg(pl.col("run_date").max()).rows()
    names = [name for name, contract in table_contracts(pl.Int64).items() if "run_date" in contract.partition_by]
    names.sort(key=lambda name: name != PUBLISHED)
    return [_clean(tables, name, first_kept, latest, file_retention_hours) for name in names if tables.exists(name)]


def delete_night_files(
    folders: Iterable[Path],
    *,
    days: int,
    kept: Collection[date] = (),
    today: date | None = None,
    file_retention_hours: int = FILE_RETENTION_HOURS,
) -> DeletedFiles:
    """Delete the local files of nights that are `days` or more old.

    All entries of a night are deleted together, and only if none of them is younger than `file_retention_hours`. The
    night may be running again, and a replaced folder may have readers while the new link is young (see
    `atomic_folder`).

    Args:
        folders: Folders whose entries are named by their night, for example `2026-01-08` or `2026-01-08.parquet`.
            Entries with other names are kept. Missing folders are ignored.
        days: Number of nights to keep, including today's.
        kept: Older nights to keep as well.
        today: None for today (UTC).
        file_retention_hours: Minimum age of every entry of a deleted night; at least 24.

    Returns:
        The deleted nights and the size of their files.

    Raises:
        InputError: `days` is below 1, or `file_retention_hours` is below 24.
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
    latest_change = time.time() - file_retention_hours * 3600
    old = {night: each for night, each in paths.items() if max(path.lstat().st_mtime for path in each) < latest_change}
    # Links first: a new reader then finds no night instead of an incomplete one.
    links_first = sorted((path for each in old.values() for path in each), key=lambda path: not path.is_symlink())
    return DeletedFiles(tuple(sorted(old)), sum(_delete_path(path) for path in links_first))


def _delete_path(path: Path) -> int:
    """Delete a link, a file or a folder with its contents; return the size of the files in bytes."""
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
    """The oldest night to keep.

    Raises:
        InputError: No night would be kept, or files of running jobs could be deleted.
    """
    if days < 1:
        raise InputError("no night would be kept", where="days", found=days, hint="keep at least 1")
    if file_retention_hours < 24:
        raise InputError(
            "files of running jobs could be deleted",
            where="file_retention_hours",
            found=file_retention_hours,
            hint="keep replaced files for at least 24 hours",
        )
    return (today or datetime.now(UTC).date()) - timedelta(days=days - 1)


def _clean(
    tables: Tables, table: str, first_kept: date, latest: list[tuple[str, str, date]], file_retention_hours: int
) -> Housekeeping:
    """Delete old nights and unused files of one table.

    Args:
        tables: Where the tables are.
        table: Name of the table.
        first_kept: The oldest night to keep.
        latest: (table, pi, night) of the latest published night of each preference.
        file_retention_hours: Minimum age of deleted files.
    """
    opened = tables.open(table)
    before = _nights(opened)
    if any(night < first_kept for night in before):
        _delete(opened, _old_nights(table, first_kept, latest))
    replaced = [] if table == PUBLISHED else replaced_publications(tables, table)
    removed = tables.open(table).vacuum(
        retention_hours=file_retention_hours,
        dry_run=False,
        enforce_retention_duration=False,  # `_first_kept` has checked the duration
        full=True,  # also files that killed writers left
        keep_versions=sorted({version for _, _, version in replaced if version is not None}) or None,
    )
    opened = tables.open(table)
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
    """SQL condition for the nights to delete, without the latest published night of each preference."""
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
            "old nights could not be deleted because of concurrent writers",
            where=table.table_uri,
            found=str(error),
            hint="run this again; nothing was deleted",
        ) from error


def _nights(table: DeltaTable) -> list[date]:
    """Nights of a table, from its log."""
    files = pl.DataFrame(table.get_add_actions(flatten=True))
    return files["partition.run_date"].unique().sort().to_list() if len(files) else []
