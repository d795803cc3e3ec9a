"""The state of one night, read from its tables and folders.

Data drives a night, not the clock: its events when their files have arrived, its sessions when its events are ingested,
each preference when the sessions are prepared, the completion when every preference is published. A night waits for
missing data; data of another day never replaces it. The state is read anew each time, so a killed daemon, a run
by hand or a lost Dagster instance does not change what happens next.
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
"""Minimum age of a raw file; a file written to more recently may be incomplete."""


@dataclass(frozen=True)
class Night:
    """What exists of one night.

    Args:
        day: the run date.
        delivery: fingerprint of the raw files of the day; None while they are missing.
        undelivered: why they are missing; empty otherwise.
        events: fingerprint of the events of the day in the event log; None if it has none.
        model_version: of the live model; None before the first deployment.
        sessions: number of prepared sessions; None unless they are prepared from `events` with the vocabulary of the
            live model.
        missing: incomplete preferences: pi -> the tables that are not published, or not by the rules of `missing_of`.
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
    """Read the state of a night.

    Args:
        shop: the shop.
        lake: its tables.
        day: the run date.
        published: `published_rows(lake)`; None reads them.
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
    """All rows of the table `published`; an empty frame before the first publication."""
    if not lake.exists("published"):
        schema = {"table_name": pl.String, "run_date": pl.Date, "pi": pl.String, "model_version": pl.String}
        return pl.DataFrame(schema={**schema, "lists": pl.Int64, "published_at": pl.Datetime("us", "UTC")})
    return lake.publications()


def missing_of(
    preferences: Iterable[str], published: pl.DataFrame, live_version: str | None, sessions: int | None
) -> dict[str, tuple[str, ...]]:
    """The tables that a night is missing, per preference.

    A night is complete when every table is published for every preference, all by one model and with equally many
    lists. In an incomplete night, tables of another than the live model, or of other sessions, count as missing too:
    they are scored again.

    Args:
        preferences: the preferences of the shop.
        published: rows of `published` of this night.
        live_version: version of the live model; None before the first deployment.
        sessions: number of prepared sessions; None if they are not prepared.

    Returns:
        pi -> its missing tables, for the incomplete preferences.
    """
    required = [(pi, table) for pi in preferences for table in LIST_TABLES]
    rows = {(row["pi"], row["table_name"]): row for row in published.iter_rows(named=True)}
    present = [(rows[each]["model_version"], each[1], rows[each]["lists"]) for each in required if each in rows]
    one_model = len({model for model, _, _ in present}) == 1
    equally_many = len({(table, lists) for _, table, lists in present}) == len(LIST_TABLES)
    if len(present) == len(required) and one_model and equally_many:
        return {}

    def is_current(pi: str, table: str) -> bool:
        row = rows.get((pi, table))
        if row is None or (live_version is not None and row["model_version"] != live_version):
            return False
        return table != "recommendations" or sessions is None or row["lists"] == sessions

    missing = {pi: tuple(table for table in LIST_TABLES if not is_current(pi, table)) for pi in preferences}
    return {pi: tables for pi, tables in missing.items() if tables}


def _delivery(shop: Shop, day: dt.date) -> tuple[str | None, str]:
    """A fingerprint of the raw files of a day by name, size and time; or None and the reason."""
    try:
        files, _ = raw_source(shop).find(day, day)
    except MultitronError as error:
        return None, str(error)
    descriptions = []
    for file in sorted(file for found in files.values() for file in found):
        path = Path(file.path)
        if "://" in file.path or not path.exists():  # an object store lists complete objects only
            descriptions.append(file.path)
            continue
        state = path.stat()
        if time.time() - state.st_mtime < SETTLED_SECONDS:
            return None, f"{path} was written to less than {SETTLED_SECONDS:.0f} s ago; it may be incomplete"
        descriptions.append(f"{file.path} {state.st_size} {state.st_mtime_ns}")
    return hashlib.sha256("\n".join(descriptions).encode()).hexdigest()[:12], ""
