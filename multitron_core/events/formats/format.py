"""What a raw format is: how its files are named, how they are read, and by which rules its sessions are prepared.

Reading gives parsed lines: one row an event or a rejected line, with the columns of `PARSED_SCHEMA`. A row whose
`reason` is null is an event; every other row is a reject.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from multitron_core.errors import InputError
from multitron_core.events.raw_files import RawFile

TIME = pl.Datetime("us", "UTC")
EVENT_TYPES = ("click", "cart", "order")
EARLIEST, LATEST = "1990-01-01", "2100-01-01"
"""Times outside these years are typing errors or wrong units, and are rejected."""

TEXT_LIMIT = 500
"""Characters of a rejected line that are kept."""

PARSED_SCHEMA = pl.Schema(
    [
        ("session_id", pl.String),
        ("item_id", pl.Int64),  # or String, as the source has them
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
    """Which sessions are the test set.

    Args:
        by: "first" or "last" compares the session's first or last click with the split time; "file" takes the split
            that was published: events of files whose name contains "test".
        days: the split time lies this many days before the anchor.
        anchor: "midnight" of the largest session start (UTC), or that start itself ("start").
    """

    by: Literal["first", "last", "file"] = "first"
    days: float = 1.0
    anchor: Literal["midnight", "start"] = "midnight"


@dataclass(frozen=True)
class PreparationRules:
    """How sessions are filtered and split (MultiTRON paper, section 4.1; counts are of clicks).

    Args:
        split: the test set.
        min_session_clicks: shorter sessions are dropped, before and after rare items are.
        min_item_clicks: items with fewer clicks in the remaining sessions are dropped; 1 keeps every item.
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
        name: what callers pass as `format`.
        roles: role -> regular expression searched in a file's name. A file belongs to the first role that fits; a
            file that fits none is not part of the data.
        parse: (files by role, the caller's column mapping or None, storage options) -> lazy parsed lines.
        optional_roles: roles that may be missing when the caller asks for it (`orders_required=False`).
        rules: how sessions of this format are prepared unless the caller says otherwise.
    """

    name: str
    roles: Mapping[str, str]
    parse: Callable[..., pl.LazyFrame]
    optional_roles: tuple[str, ...] = ()
    rules: PreparationRules = field(default_factory=PreparationRules)


Files = Mapping[str, Sequence[RawFile]]
"""Files by role."""
