"""The state of the last nights: which preferences are published, late or failed, and why.

It reads the tables and the runs of the Dagster instance. It needs no daemon, and reports when none is running.
`multitron status` prints it.
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
"""The daemons of Dagster that a night needs."""
SILENT_SECONDS = 300.0
"""A daemon counts as stopped after this time without a heartbeat. Heartbeats come every 30 s; Dagster waits 30 min."""


@dataclass(frozen=True)
class PreferenceStatus:
    """The state of one preference of a night.

    Args:
        pi: key of the preference.
        state: `published`: all tables are released and readable as they were checked; `running`: a run is unfinished;
            `failed`: a run failed and is not retried; `late`: the deadline has passed, no run failed; `waiting`: the
            deadline has not passed.
        why: the reason; empty if published.
        model_version: of the published tables; None if there are none.
        published_at: when the last table was released (UTC); None if there is none.
        command: the re-run command; empty if nothing has to be done by hand.
    """

    pi: str
    state: State
    why: str
    model_version: str | None
    published_at: dt.datetime | None
    command: str


@dataclass(frozen=True)
class NightStatus:
    """A night: its run date, deadline (UTC) and preferences; `complete` when all are published by one model."""

    day: dt.date
    deadline: dt.datetime
    complete: bool
    preferences: tuple[PreferenceStatus, ...]


@dataclass(frozen=True)
class Standstill:
    """A reason why no night starts automatically, and alternative shell commands that fix it."""

    why: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Status:
    """The last nights, newest first, and why no night starts automatically; empty if nights do start."""

    nights: tuple[NightStatus, ...]
    standstills: tuple[Standstill, ...]

    @property
    def late(self) -> bool:
        """Whether a preference of a night is late or failed."""
        return any(each.state in ("late", "failed") for night in self.nights for each in night.preferences)


def status(shop: Shop, instance: dg.DagsterInstance, *, nights: int = 7, now: dt.datetime | None = None) -> Status:
    """The state of the last nights.

    Args:
        shop: the shop.
        instance: its Dagster instance.
        nights: maximum number of nights, at least 1.
        now: the time that deadlines are compared with, with a time zone; None for the present.

    Raises:
        InputError: `nights` below 1.
    """
    if nights < 1:
        raise InputError("the number of nights is below 1", where="nights", found=nights, hint="use 1 or more")
    now = now or dt.datetime.now(dt.UTC)
    last = min(last_whole_day(now), shop.settings.last_night)
    days = [last - dt.timedelta(days=back) for back in range(nights)]
    published = published_rows(shop.lake())
    found = [
        night_status(shop, instance, day, now=now, published=published)
        for day in days
        if day >= shop.settings.first_night
    ]
    return Status(tuple(found), standstills(shop, instance))


def night_status(
    shop: Shop, instance: dg.DagsterInstance, day: dt.date, *, now: dt.datetime, published: pl.DataFrame
) -> NightStatus:
    """The state of one night.

    Args:
        shop: the shop.
        instance: where its runs are recorded.
        day: the run date.
        now: the time that the deadline is compared with, with a time zone.
        published: `night.published_rows`.
    """
    lake = shop.lake()
    night = read_night(shop, lake, day, published=published)
    deadline = shop.settings.night.deadline(day)
    decisions = {each.step.partition: each for each in decide(instance, next_steps(shop, night), night, now)}
    keys = {pi: str(night_key(day, pi)) for pi in shop.settings.preferences}
    runs = runs_of(instance, [str(day), *keys.values()])
    preferences = []
    for pi, key in keys.items():
        rows = published.filter(run_date=day, pi=pi)
        problem = _unreadable(lake, day, pi, rows)
        if pi not in night.missing and not problem:
            state: State = "published"
            why, command = "", ""
        else:
            state, why, command = _unpublished(shop, instance, night.undelivered, decisions, runs, key, now > deadline)
            if problem:
                state, why = "failed", f"published rows cannot be read: {problem}"
                command = command or rerun_command(shop, "scoring", key)
        versions = rows["model_version"].unique().sort().to_list()
        preferences.append(
            PreferenceStatus(
                pi=pi,
                state=state,
                why=redacted(why),
                model_version=", ".join(versions) or None,
                published_at=rows["published_at"].max() if len(rows) else None,  # type: ignore[arg-type]
                command=command,
            )
        )
    complete = all(each.state == "published" for each in preferences)
    return NightStatus(day, deadline, complete, tuple(preferences))


def _unreadable(lake: Lake, day: dt.date, pi: str, rows: pl.DataFrame) -> str:
    """Why a published partition cannot be read as it was checked; empty if it can."""
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
    """State, reason and re-run command of a preference that is not published."""
    day = key.partition("|")[0]
    scoring_runs = [run for run in runs if run.partition == key and run.job == "scoring"]
    if any(run.unfinished for run in scoring_runs):
        return "running", f"run {scoring_runs[0].run_id} is running", ""
    decision = decisions.get(key) or decisions.get(day)
    # An earlier step may have failed; then the newest run of its job has the reason.
    job = decision.step.job if decision else "ingestion"
    step_runs = [run for run in runs if (run.job, run.partition) == (job, key if job == "scoring" else day)]
    if any(run.unfinished for run in step_runs):
        return "running", f"{job}: run {step_runs[0].run_id} is running", ""
    retry_pending = decision is not None and decision.failure is not None and decision.failure.transient and not late
    if step_runs and step_runs[0].failed and not retry_pending:
        failure = failure_of(instance, step_runs[0].run_id)
        return "failed", f"{job}: {failure.what}", rerun_command(shop, job, step_runs[0].partition)
    if decision is not None and decision.failure is not None:
        why = f"{job}: {decision.why}"
    elif decision is not None and decision.request is None and not decision.running:
        why = decision.why or f"{job} has not run yet"
    else:
        why = (f"{job} has not run yet" if decision else undelivered) or "no model is deployed"
    return ("late" if late else "waiting"), why, rerun_command(shop, job, key if job == "scoring" else day)


def standstills(shop: Shop, instance: dg.DagsterInstance) -> tuple[Standstill, ...]:
    """Why no night starts automatically: the daemon is stopped, the sensor is stopped; empty if nights do start."""
    if instance.is_ephemeral:
        return (Standstill("this Dagster instance has no daemon", ()),)
    found = []
    silent = _silent_daemons(instance)
    if silent:
        commands = (f"{ui_command(shop)}   # in the checkout; also starts the UI", start_daemon_command(shop))
        found.append(Standstill(f"the Dagster daemon is not running: {silent}", commands))
    if not any(each.name == SENSOR and each.is_running for each in instance.all_instigator_state()):
        found.append(Standstill(f"the sensor `{SENSOR}` is stopped", (start_sensor_command(shop, SENSOR),)))
    return tuple(found)


def _silent_daemons(instance: dg.DagsterInstance) -> str:
    """The daemons without a recent heartbeat, as text; empty if all have one."""
    beats = instance.get_daemon_heartbeats()
    silent: dict[str, list[str]] = {}
    for name in DAEMONS:
        if name not in beats:
            silent.setdefault("no heartbeat yet", []).append(name.lower())
        elif time.time() - beats[name].timestamp > SILENT_SECONDS:
            last = dt.datetime.fromtimestamp(beats[name].timestamp, dt.UTC)
            silent.setdefault(f"no heartbeat since {last:%Y-%m-%d %H:%M} UTC", []).append(name.lower())
    return "; ".join(f"{', '.join(names)} {when}" for when, names in silent.items())
