"""The night as a whole: what of it is there, and which runs come next.

A night is driven by what is there and not by the clock: its events when their files are in, its sessions when its
events are in, each preference when the sessions are ready, the completion when every preference is published. What is
missing is waited for; what is there is never taken for another day's. All of it is read from the tables and folders
anew, so that a killed daemon, a run by hand and a lost Dagster instance change nothing.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import polars as pl

from multitron_core.errors import InputError, MultitronError
from multitron_core.lake import Lake
from orchestration.assets.ingestion import events_fingerprint, raw_source
from orchestration.assets.scoring import live_model
from orchestration.checks import LIST_TABLES
from orchestration.partitions import night_key
from orchestration.run_history import PartitionRun, RunFailure, failure_of, runs_of
from orchestration.schedules import last_whole_day
from orchestration.shop import Shop

SENSOR = "nights"
"""The sensor that drives the nights."""

STEP_TAG = "multitron/step"
"""Run tag: what exactly a run of the night was asked to do. Asked twice for the same, Dagster starts one run."""

SETTLED_SECONDS = 15.0
"""A raw file that was written to more recently may still be on its way."""

WAITS = (dt.timedelta(minutes=5), dt.timedelta(minutes=15), dt.timedelta(minutes=30))
"""How long after a failure that may pass by itself the same step is asked for again."""


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


@dataclass(frozen=True)
class Step:
    """A run that the night needs: a job, its partition, and a key that says for what exactly."""

    job: str
    partition: str
    key: str


@dataclass(frozen=True)
class Decision:
    """What becomes of a step: a request, or why there is none.

    Args:
        step: the step.
        request: the run to start, None when there is nothing to start now.
        why: what is waited for.
        failure: of the last run for this step, where that one stays the last.
        at_work: whether a run does it now.
    """

    step: Step
    request: dg.RunRequest | None
    why: str
    failure: RunFailure | None = None
    at_work: bool = False

    @property
    def pending(self) -> bool:
        """Whether it is being done, or is to be started now."""
        return self.at_work or self.request is not None


def open_nights(shop: Shop, now: dt.datetime) -> list[dt.date]:
    """The days whose nights have begun and are still made up for, the oldest first."""
    settings = shop.settings
    last = min(last_whole_day(now), settings.last_night)
    days = [last - dt.timedelta(days=back) for back in reversed(range(settings.night.catch_up_days))]
    return [day for day in days if day >= settings.first_night and now >= settings.night.begins(day)]


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


def next_steps(shop: Shop, night: Night) -> list[Step]:
    """The runs that an incomplete or just completed night needs now; none while what they need is not there."""
    day = str(night.day)
    ingestion = [] if night.delivery is None else [Step("ingestion", day, f"ingestion {day} {night.delivery}")]
    if night.complete:
        return []
    if night.events is None or (ingestion and shop.settings.source.files is not None):
        steps = ingestion
        if night.events is None:
            return steps
    else:
        steps = []
    if night.model_version is None:
        return steps
    made_from = f"{day} events {night.events} model {night.model_version}"
    if night.sessions is None:
        return [*steps, Step("session_preparation", day, f"session_preparation {made_from}")]
    return [
        *steps,
        *(Step("scoring", str(night_key(night.day, pi)), f"scoring {made_from} pi {pi}") for pi in night.missing),
    ]


def completion_step(night: Night, published: pl.DataFrame) -> Step:
    """The run that closes a complete night; a night that was released again is closed again."""
    released = hashlib.sha256(str(published.filter(run_date=night.day)["published_at"].max()).encode()).hexdigest()[:12]
    return Step("night_completion", str(night.day), f"night_completion {night.day} released {released}")


def decide(instance: dg.DagsterInstance, steps: Sequence[Step], night: Night, now: dt.datetime) -> list[Decision]:
    """Which of the steps to start now.

    A step waits while a run of the same job and partition is at work, whoever started it. A step that failed for a
    reason that may pass is asked for again after `WAITS`; one that failed for another reason is not, until what it
    would be made from changes.
    """
    if not steps:
        return []
    history = runs_of(instance, sorted({step.partition for step in steps}))
    decisions: list[Decision] = []
    for step in steps:
        decisions.append(_decide(instance, step, night, history, now))
        if step.job == "ingestion" and decisions[-1].pending:
            break  # what would be made from the day's events waits for them
    return decisions


def _decide(
    instance: dg.DagsterInstance, step: Step, night: Night, history: list[PartitionRun], now: dt.datetime
) -> Decision:
    same = [run for run in history if (run.job, run.partition) == (step.job, step.partition)]
    at_work = [run for run in same if run.at_work]
    if at_work:
        return Decision(step, None, f"run {at_work[0].run_id} of {step.job} is at work", at_work=True)
    mine = [run for run in same if run.tags.get(STEP_TAG) == step.key]
    if not mine:
        # An event log that somebody else filled from these files is as good as ours.
        if step.job == "ingestion" and night.events is not None and not _asked_before(same):
            return Decision(step, None, "the day's events are in")
        return Decision(step, _request(step, 0), "")
    last = mine[0]
    if not last.failed:
        return Decision(step, None, f"run {last.run_id} has done it")
    failure = failure_of(instance, last.run_id)
    if not failure.transient or len(mine) > len(WAITS):
        return Decision(step, None, failure.what, failure)
    again = (last.ended or now) + WAITS[len(mine) - 1]
    if now < again:
        return Decision(step, None, f"asked for again at {again:%H:%M} UTC, after: {failure.what}", failure)
    return Decision(step, _request(step, len(mine)), "")


def _asked_before(runs: list[PartitionRun]) -> bool:
    return any(STEP_TAG in run.tags for run in runs)


def _request(step: Step, attempt: int) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{step.key} attempt {attempt}",
        job_name=step.job,
        partition_key=step.partition,
        tags={STEP_TAG: step.key},
    )


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


def prepared_sessions(shop: Shop, day: dt.date, events: str | None) -> int | None:
    """How many sessions a night has from these events, with the live vocabulary; None where they are to be prepared.

    Args:
        shop: the shop.
        day: the run date.
        events: `events_fingerprint`.

    Raises:
        InputError: no model is deployed.
    """
    folder = shop.scoring_sessions(day)
    try:
        prepared = json.loads((folder / "made_from.json").read_text())
    except (OSError, ValueError):
        return None
    wanted = {"events": events, "vocabulary_hash": live_model(shop).vocabulary_hash}
    return int(prepared["sessions"]) if {name: prepared.get(name) for name in wanted} == wanted else None
