"""Location of a shop's raw events, and the files that belong to each day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from multitron_core.errors import InputError, UnavailableError
from multitron_core.events.formats import ColumnMapping, get_format
from multitron_core.events.raw_files import Location, RawFile, find_raw_files

LATE_DAYS = 31
"""Default of `RawSource.max_late_days`."""


@dataclass(frozen=True)
class RawSource:
    """Raw events as a shop delivers them.

    Args:
        path: A file, folder, glob or object-store URL. With `files`, the folder that contains them.
        format: `diginetica`, `yoochoose`, `otto` or `table`.
        files: Names of one day's files below `path`, a glob that contains the day: `events-{date}.csv.gz`,
            `{date}/*.csv`, `clicks-{date:%Y%m%d}*`. None if the files do not belong to single days; then every run
            reads all files and keeps the events of its days.
        columns: For `table`: the column mapping, or its settings by name (`session_gap` in minutes).
        max_reject_share: Largest accepted share of bad lines, checked for every delivered day.
        max_late_days: Largest accepted age of an event, in days before the day of its file. Older events, and events
            more than one day after the file's day, are rejected, so that a damaged time cannot change a day in the far
            past or future. It has an effect with `files` only.
        orders_required: Whether files of clicks without files of orders are refused.
        storage_options: Options of the object store, as polars takes them.
    """

    path: str
    format: str
    files: str | None = None
    columns: ColumnMapping | Mapping[str, Any] | None = None
    max_reject_share: float = 0.01
    max_late_days: int = LATE_DAYS
    orders_required: bool = True
    storage_options: dict[str, str] | None = field(default=None, repr=False)  # contains secrets

    def __post_init__(self) -> None:
        get_format(self.format)
        object.__setattr__(self, "path", str(self.path))
        if self.columns is not None and not isinstance(self.columns, ColumnMapping):
            object.__setattr__(self, "columns", ColumnMapping.from_settings(self.columns))
        if self.files is not None and self.day_pattern(date(2001, 2, 3)) == self.day_pattern(date(2004, 5, 6)):
            raise InputError(
                "the file names do not contain the day",
                where="RawSource.files",
                found=self.files,
                hint="write {date} in place of the day, or omit the pattern",
            )

    @property
    def mapping(self) -> ColumnMapping | None:
        """`columns` as a mapping."""
        return self.columns if isinstance(self.columns, ColumnMapping) else None

    def day_pattern(self, day: date) -> str:
        """Glob of a day's files.

        Raises:
            InputError: `files` contains a field other than `{date}`.
        """
        assert self.files is not None
        try:
            return f"{self.path.rstrip('/')}/{self.files.format(date=day)}"
        except (KeyError, IndexError, ValueError) as error:
            raise InputError(
                "the pattern of the file names is not valid",
                where="RawSource.files",
                found=self.files,
                hint="use the field {date}, with a format if necessary, for example {date:%Y%m%d}",
            ) from error

    def find(self, first: date, last: date) -> tuple[dict[str, list[RawFile]], dict[str, date] | None]:
        """Find the files to read for the days from `first` to `last`, both included.

        Returns:
            Files by role, and the day of each file by its name; None in place of the days if the source has no pattern.

        Raises:
            InputError: There is no file to read.
            UnavailableError: A day has no file (yet).
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
                hint="wait for the files, or ingest only the days that have files",
            )
        return by_role, day_of_file

    def _find(self, location: Location, root: str | None) -> dict[str, list[RawFile]]:
        return find_raw_files(
            location, get_format(self.format).roles, format=self.format, root=root, storage_options=self.storage_options
        )


def days_between(first: date, last: date) -> list[date]:
    """Days from `first` to `last`, both included.

    Raises:
        InputError: `last` is before `first`.
    """
    if last < first:
        raise InputError(
            "the last day is before the first day", found=(str(first), str(last)), hint="swap the two days"
        )
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]
