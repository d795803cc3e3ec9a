"""Definition of a raw format: names of its files, parser, and rules for the preparation of its sessions.

A parser gives one row per event and one per rejected line, with the columns of `PARSED_SCHEMA`. A row whose `reason` is
null is an event; every other row is a reject.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from multitron_core.errors import InputError
from multitron_core.events.raw_files import RawFile

TIME = pl.Datetime("us", "UTC")
"""Type of times in the event log."""

EARLIEST, LATEST = "1990-01-01", "2100-01-01"
"""Range of accepted times (`LATEST` excluded). Times outside it are typing errors or have a wrong unit."""

TEXT_LIMIT = 500
"""Maximum number of characters of a rejected line that are kept."""

PARSED_SCHEMA = pl.Schema(
    [
        ("session_id", pl.String),
        ("item_id", pl.Int64),  # or String, as in the source
        ("ts", TIME),
        ("event_type", pl.String),
        ("file", pl.String),
        ("line", pl.Int64),
        ("reason", pl.String),
        ("text", pl.String),
    ]
)
PARSED_COLUMNS = PARSED_SCHEMA.names()


@dataclass(frozen=True)
class SplitRule:
    """Rule that selects the sessions of the test set.

    Args:
        by: "first" or "last" compares the time of the session's first or last click with the split time. "file" uses
            the published split: sessions of files whose name contains "test".
        days: Distance of the split time before the anchor, in days.
        anchor: "start" is the latest session start; "midnight" is the beginning of its day (UTC).
    """

    by: Literal["first", "last", "file"] = "first"
    days: float = 1.0
    anchor: Literal["midnight", "start"] = "midnight"


@dataclass(frozen=True)
class PreparationRules:
    """Rules that filter and split sessions (MultiTRON paper, section 4.1). All counts are numbers of clicks.

    Args:
        split: Selects the test set.
        min_session_clicks: Shorter sessions are dropped, before and after rare items are dropped.
        min_item_clicks: Items with fewer clicks in the remaining sessions are dropped; 1 keeps every item.
    """

    split: SplitRule = SplitRule()
    min_session_clicks: int = 2
    min_item_clicks: int = 5

    def __post_init__(self) -> None:
        for name, low in (("min_session_clicks", 1), ("min_item_clicks", 1)):
            if getattr(self, name) < low:
                raise InputError(
                    "a preparation rule is out of range",
                    where=f"PreparationRules.{name}",
                    found=getattr(self, name),
                    hint=f"use {low} or more",
                )
        if not self.split.days >= 0:
            raise InputError(
                "split_days is negative", where="SplitRule.days", found=self.split.days, hint="use 0 or more days"
            )


@dataclass(frozen=True)
class Format:
    """A raw format.

    Args:
        name: Value of the argument `format` of `read_events`.
        roles: Role -> regular expression that is searched in a file's name. A file has the first role that matches; a
            file without a role is not part of the data.
        parse: (files by role, column mapping or None, storage options) -> lazy frame of `PARSED_SCHEMA`.
        optional_roles: Roles that may be missing with `orders_required=False`.
        rules: Default rules for the preparation of sessions.
    """

    name: str
    roles: Mapping[str, str]
    parse: Callable[..., pl.LazyFrame]
    optional_roles: tuple[str, ...] = ()
    rules: PreparationRules = field(default_factory=PreparationRules)


Files = Mapping[str, Sequence[RawFile]]
"""Files by role."""
