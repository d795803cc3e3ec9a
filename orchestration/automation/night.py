"""The night as a whole: what of it is there, and which runs come next.

A night is driven by what is there and not by the clock: its events when their files are in, its sessions when its
events are in, each preference when the sessions are ready, the completion when every preference is published. What is
missing is waited for; what is there is never taken for another day's. All of it is read from the tables and folders
anew, so that a killed daemon, a run by hand and a lost Dagster instance change nothing.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from multitron_core.errors import InputError, MultitronError
from multitron_core.lake.contracts import LIST_TABLES
from multitron_core.lake.lake import Lake
from orchestration.shop.deployed import live_model
from orchestration.shop.home import Shop
from orchestration.shop.night_sessions import prepared_sessions
from orchestration.shop.sources import events_fingerprint, raw_source

SETTLED_SECONDS = 15.0
"""A raw file that was written to more recently may still be on its way."""


@dataclass(frozen=True)
class Night:
    """What is there of one night.

    Args:
        day: the run date.
        delivery: fingerprint of the day's raw files, None while they are not there.
        undelivered: why they are not.
        events: fingerprint of what the event log has of the day, None when that is nothing.
        model_version: the live model's, None before the first deployment.
        sessions: how many are prepared, from these events and with the live model's vocabulary; None when they are not.
        missing: pi -> the tables that are not published as they should be, of the preferences that are not whole.
    """

    day: dt.date
    delivery: str | None
    undelivered: str
    events: str | None
    model_version: str | None
    sessions: int | None
    missing: dict[str, tuple[str, ...]]

    @property
    def complete(self) -> bool:
        """Whether every table of every preference is published, by one model, for the same sessions."""
        return not self.missing


def read_night(shop: Shop, lake: Lake, day: dt.date, *, published: pl.DataFrame | None = None) -> Night:
    """What is there of a night.

    Args:
        shop: the shop.
        lake: its tables.
        day: the run date.
        published: `published_rows(lake)`, where the caller has them already.
    """
    delivery, undelivered = _delivery(shop, day)
    events = events_fingerprint(lake, day)
    try:
        version = live_model(shop).model_version
    except InputError:
        version = None
    sessions = None if version is None else prepared_sessions(shop, day, events)
    rows = published_rows(lake) if published is None else published
    return Night(
        day=day,
        delivery=delivery,
        undelivered=undelivered,
        events=events,
        model_version=version,
        sessions=sessions,
        missing=missing_of(shop.settings.preferences, rows.filter(run_date=day), version, sessions),
    )


def published_rows(lake: Lake) -> pl.DataFrame:
    """Every row of `published`; none where nothing was ever published."""
    if not lake.exists("published"):
        schema = {"table_name": pl.String, "run_date": pl.Date, "pi": pl.String, "model_version": pl.String}
        return pl.DataFrame(schema={**schema, "lists": pl.Int64, "published_at": pl.Datetime("us", "UTC")})
    return lake.publications()


def missing_of(
    preferences: Iterable[str], published: pl.DataFrame, live_version: str | None, sessions: int | None
) -> dict[str, tuple[str, ...]]:
    """The tables that a night misses, by preference.

    A night is whole when every table is there for every preference, all by one model and with equally many lists. When
    it is not, what another than the live model made, or from other sessions, is missing too: it has to be made again.

    Args:
        preferences: those wanted.
        published: rows of `published` of this night.
        live_version: the model that answers now.
        sessions: how many there are to be scored now.
    """
    wanted = [(pi, table) for pi in preferences for table in LIST_TABLES]
    rows = {(row["pi"], row["table_name"]): row for row in published.iter_rows(named=True)}
    there = [(rows[each]["model_version"], each[1], rows[each]["lists"]) for each in wanted if each in rows]
    one_model = len({model for model, _, _ in there}) == 1
    equally_many = len({(table, lists) for _, table, lists in there}) == len(LIST_TABLES)
    if len(there) == len(wanted) and one_model and equally_many:
        return {}

    def good(pi: str, table: str) -> bool:
        row = rows.get((pi, table))
        if row is None or (live_version is not None and row["model_version"] != live_version):
            return False
        return table != "recommendations" or sessions is None or row["lists"] == sessions

    missing = {pi: tuple(table for table in LIST_TABLES if not good(pi, table)) for pi in preferences}
    return {pi: tables for pi, tables in missing.items() if tables}


def _delivery(shop: Shop, day: dt.date) -> tuple[str | None, str]:
    """A fingerprint of the day's raw files by name, size and time, and why there is none."""
    try:
        files, _ = raw_source(shop).find(day, day)
    except MultitronError as error:
        return None, str(error)
    described = []
    for file in sorted(file for found in files.values() for file in found):
        path = Path(file.path)
        if "://" in file.path or not path.exists():  # object stores show whole objects only
            described.append(file.path)
            continue
        state = path.stat()
        if time.time() - state.st_mtime < SETTLED_SECONDS:
            return None, f"{path} was written to a moment ago; it may still be on its way"
        described.append(f"{file.path} {state.st_size} {state.st_mtime_ns}")
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:12], ""
