"""Where a shop's raw events are, and which of its files belong to which day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from multitron_core.errors import InputError, UnavailableError
from multitron_core.events.formats import ColumnMapping, get_format
from multitron_core.events.raw_files import Location, RawFile, find_raw_files

LATE_DAYS = 31
"""Days that an event may be older than the file that brings it, unless a source says otherwise."""


@dataclass(frozen=True)
class RawSource:
    """Raw events as they are delivered.

    Args:
        path: a file, folder, glob or object-store URL; with `files`, the folder that these are in.
        format: `diginetica`, `yoochoose`, `otto` or `table`.
        files: the names of one day's files below `path`, a glob with the day in it: `events-{date}.csv.gz`,
            `{date}/*.csv`, `clicks-{date:%Y%m%d}*`. None when the files are not one day's each: then every run reads
            all of them and takes the events of its days.
        columns: for `table`: the column mapping, or its settings by name (`session_gap` in minutes).
        max_reject_share: the largest share of bad lines, of every delivered day, that is let pass.
        max_late_days: events that are this many days older than their file's day, or more than a day younger, are
            rejected: a damaged time must not reach into the far past or the future. Needs `files`.
        orders_required: whether files of clicks without files of orders are refused.
        storage_options: for object stores, as polars takes them.
    """

    path: str
    format: str
    files: str | None = None
    columns: ColumnMapping | Mapping[str, Any] | None = None
    max_reject_share: float = 0.01
    max_late_days: int = LATE_DAYS
    orders_required: bool = True
    storage_options: dict[str, str] | None = field(default=None, repr=False)  # secrets

    def __post_init__(self) -> None:
        get_format(self.format)
        object.__setattr__(self, "path", str(self.path))
        if self.columns is not None and not isinstance(self.columns, ColumnMapping):
            object.__setattr__(self, "columns", ColumnMapping.from_settings(self.columns))
        if self.files is not None and self.day_pattern(date(2001, 2, 3)) == self.day_pattern(date(2004, 5, 6)):
            raise InputError(
                "the names of the files do not contain their day",
                where="RawSource.files",
                found=self.files,
                hint="write {date} where the day stands, or give no pattern",
            )

    @property
    def mapping(self) -> ColumnMapping | None:
        """`columns` as a mapping."""
        return self.columns if isinstance(self.columns, ColumnMapping) else None

    def day_pattern(self, day: date) -> str:
        """The glob of a day's files."""
        assert self.files is not None
        try:
            return f"{self.path.rstrip('/')}/{self.files.format(date=day)}"
        except (KeyError, IndexError, ValueError) as error:
            raise InputError(
                "the pattern of the files cannot be read",
                where="RawSource.files",
                found=self.files,
                hint="the only field is {date}, or {date:%Y%m%d} in another spelling",
            ) from error

    def find(self, first: date, last: date) -> tuple[dict[str, list[RawFile]], dict[str, date] | None]:
        """The files to read for the days from `first` to `last`.

        Returns:
            Files by role; and the day of each file's name, None without a pattern.

        Raises:
            InputError: nothing to read.
            UnavailableError: a day has no file (yet).
        """
        if self.files is None:
            return self._find(self.path, None), None
        by_role: dict[str, list[RawFile]] = {role: [] for role in get_format(self.format).roles}
        day_of_file: dict[str, date] = {}
        missing = []
        for day in days_between(first, last):
            try:
                found = self._find(self.day_pattern(day), self.path)
            except InputError:
                missing.append(day.isoformat())
                continue
            for role, files in found.items():
                by_role[role] += files
                day_of_file |= dict.fromkeys((file.name for file in files), day)
        if missing:
            raise UnavailableError(
                f"there is no {self.format} file of {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}",
                where=self.day_pattern(date.fromisoformat(missing[0])),
                hint="wait for the files, or ingest the days that are there",
            )
        return by_role, day_of_file

    def _find(self, location: Location, root: str | None) -> dict[str, list[RawFile]]:
        return find_raw_files(
            location, get_format(self.format).roles, format=self.format, root=root, storage_options=self.storage_options
        )


def days_between(first: date, last: date) -> list[date]:
    """The days from `first` to `last`, both included.

    Raises:
        InputError: `last` lies before `first`.
    """
    if last < first:
        raise InputError("the last day lies before the first", found=(str(first), str(last)), hint="exchange them")
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]
