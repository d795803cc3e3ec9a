"""What became of the last nights: which preferences are published, late or failed, and why.

    python -m orchestration.status [--nights 7] [--json] [--check]

It reads the tables and Dagster's runs, and needs no daemon: it also tells when nothing starts the nights.
"""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from typing import Literal

import dagster as dg
import polars as pl

from multitron_core.errors import InputError, MultitronError
from multitron_core.lake.lake import Lake
from multitron_core.lake.publication import published_night
from multitron_core.utils.redaction import redacted
from orchestration.automation.night import published_rows, read_night
from orchestration.automation.night_steps import SENSOR, Decision, decide, next_steps
from orchestration.automation.rerun_commands import (
    rerun_command,
    start_daemon_command,
    start_sensor_command,
    ui_command,
)
from orchestration.automation.run_history import PartitionRun, failure_of, runs_of
from orchestration.runtime.partitions import night_key
from orchestration.shop.calendar import last_whole_day
from orchestration.shop.home import Shop

State = Literal["published", "running", "waiting", "late", "failed"]
DAEMONS = ("SENSOR", "SCHEDULER", "QUEUED_RUN_COORDINATOR")
SILENT_SECONDS = 300.0
"""A daemon writes a heartbeat every 30 s; Dagster itself calls one healthy for half an hour after its last."""


@dataclass(frozen=True)
class PreferenceStatus:
    """One preference of a night.

    Args:
        pi: its key.
        state: `published`: all tables, readable as they were checked; `running`: a run is at work; `failed`: a
            run failed and nothing will start it again; `late`: nothing failed, the deadline
            is over; `waiting`: it is not yet.
        why: the reason, empty when published.
        model_version: of what is published.
        published_at: when its last table was released (UTC).
        command: the shell command that does the missing work, empty when there is nothing to be done by hand.
    """

    pi: str
    state: State
    why: str
    model_version: str | None
    published_at: dt.datetime | None
    command: str


@dataclass(frozen=True)
class NightStatus:
    """A night: its deadline (UTC) and its preferences; `complete` when all are published by one model."""

    day: dt.date
    deadline: dt.datetime
    complete: bool
    preferences: tuple[PreferenceStatus, ...]


@dataclass(frozen=True)
class Standstill:
    """A reason why no night starts by itself, and the shell commands of which any one ends it."""

    why: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Status:
    """The last nights, the newest first, and why none starts by itself (empty: they do)."""

    nights: tuple[NightStatus, ...]
    standstills: tuple[Standstill, ...]

    @property
    def late(self) -> bool:
        """Whether a night is beyond its deadline and not whole."""
        return any(each.state in ("late", "failed") for night in self.nights for each in night.preferences)


def status(shop: Shop, instance: dg.DagsterInstance, *, nights: int = 7, now: dt.datetime | None = None) -> Status:
    """The state of the last nights.

    Args:
        shop: the shop.
        instance: its Dagster instance.
        nights: how many.
        now: the time to judge lateness by, with a zone; the present when None.

    Raises:
        InputError: `nights` below 1.
    """
    if nights < 1:
        raise InputError("no night is asked for", where="nights", found=nights, hint="use 1 or more")
    now = now or dt.datetime.now(dt.UTC)
    last = min(last_whole_day(now), shop.settings.last_night)
    days = [last - dt.timedelta(days=back) for back in range(nights)]
    published = published_rows(shop.lake())
    told = [
        night_status(shop, instance, day, now=now, published=published)
        for day in days
        if day >= shop.settings.first_night
    ]
    return Status(tuple(told), standstills(shop, instance))


def night_status(
    shop: Shop, instance: dg.DagsterInstance, day: dt.date, *, now: dt.datetime, published: pl.DataFrame
) -> NightStatus:
    """The state of one night.

    Args:
        shop, instance: of the night.
        day: its run date.
        now: the time to judge lateness by.
        published: `nights.published_rows`.
    """
    lake = shop.lake()
    night = read_night(shop, lake, day, published=published)
    deadline = shop.settings.night.deadline(day)
    decisions = {each.step.partition: each for each in decide(instance, next_steps(shop, night), night, now)}
    keys = {pi: str(night_key(day, pi)) for pi in shop.settings.preferences}
    runs = runs_of(instance, [str(day), *keys.values()])
    told = []
    for pi, key in keys.items():
        rows = published.filter(run_date=day, pi=pi)
        gone = _unreadable(lake, day, pi, rows)
        if pi not in night.missing and not gone:
            state: State = "published"
            why, command = "", ""
        else:
            state, why, command = _unpublished(shop, instance, night.undelivered, decisions, runs, key, now > deadline)
            if gone:
                state, why = "failed", f"what was published cannot be read: {gone}"
                command = command or rerun_command(shop, "scoring", key)
        versions = rows["model_version"].unique().sort().to_list()
        told.append(
            PreferenceStatus(
                pi=pi,
                state=state,
                why=redacted(why),
                model_version=", ".join(versions) or None,
                published_at=rows["published_at"].max() if len(rows) else None,  # type: ignore[arg-type]
                command=command,
            )
        )
    return NightStatus(day, deadline, all(each.state == "published" for each in told), tuple(told))


def _unreadable(lake: Lake, day: dt.date, pi: str, rows: pl.DataFrame) -> str:
    """Why a published partition cannot be read as it was checked; empty when it can."""
    for table in rows["table_name"].to_list():
        try:
            published_night(lake, table, pi, day)
        except MultitronError as error:
            return str(error)
    return ""


def _unpublished(
    shop: Shop,
    instance: dg.DagsterInstance,
    undelivered: str,
    decisions: dict[str, Decision],
    runs: list[PartitionRun],
    key: str,
    late: bool,
) -> tuple[State, str, str]:
    """State, reason and command of a preference that is not published."""
    day = key.partition("|")[0]
    own = [run for run in runs if run.partition == key and run.job == "scoring"]
    if any(run.at_work for run in own):
        return "running", f"run {own[0].run_id} is at work", ""
    decision = decisions.get(key) or decisions.get(day)
    # What is upstream of it may have failed; then the newest run of that job says why.
    job = decision.step.job if decision else "ingestion"
    same = [run for run in runs if (run.job, run.partition) == (job, key if job == "scoring" else day)]
    if any(run.at_work for run in same):
        return "running", f"{job}: run {same[0].run_id} is at work", ""
    if decision is not None and decision.request is None and decision.failure is None and not decision.at_work:
        why = decision.why
    else:
        why = ""
    if same and same[0].failed and not (decision and decision.failure and decision.failure.transient and not late):
        return (
            "failed",
            f"{job}: {failure_of(instance, same[0].run_id).what}",
            rerun_command(shop, job, same[0].partition),
        )
    waiting = why or (f"{job} has not run yet" if decision else undelivered) or "nothing is deployed"
    if decision and decision.failure:
        waiting = f"{job}: {decision.why}"
    return ("late" if late else "waiting"), waiting, rerun_command(shop, job, key if job == "scoring" else day)


def standstills(shop: Shop, instance: dg.DagsterInstance) -> tuple[Standstill, ...]:
    """Why no night starts by itself: the daemon does not run, the sensor is off; none when nights do start."""
    if instance.is_ephemeral:
        return (Standstill("this instance has no daemon", ()),)
    found = []
    silent = _silent_daemons(instance)
    if silent:
        commands = (f"{ui_command(shop)}   # in the checkout; with the UI", start_daemon_command(shop))
        found.append(Standstill(f"the Dagster daemon does not run: {silent}", commands))
    if not any(each.name == SENSOR and each.is_running for each in instance.all_instigator_state()):
        found.append(Standstill(f"the sensor `{SENSOR}` is off", (start_sensor_command(shop, SENSOR),)))
    return tuple(found)


def _silent_daemons(instance: dg.DagsterInstance) -> str:
    """The daemons that a night needs and that give no sign of life; empty when all do."""
    beats = instance.get_daemon_heartbeats()
    silent: dict[str, list[str]] = {}
    for name in DAEMONS:
        if name not in beats:
            silent.setdefault("not seen yet", []).append(name.lower())
        elif time.time() - beats[name].timestamp > SILENT_SECONDS:
            last = dt.datetime.fromtimestamp(beats[name].timestamp, dt.UTC)
            silent.setdefault(f"not seen since {last:%Y-%m-%d %H:%M} UTC", []).append(name.lower())
    return "; ".join(f"{', '.join(names)} {when}" for when, names in silent.items())
