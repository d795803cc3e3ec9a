"""The next runs of a night, and whether to start them now."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
import polars as pl

from orchestration.automation.night import Night
from orchestration.automation.run_history import PartitionRun, RunFailure, failure_of, runs_of
from orchestration.runtime.partitions import night_key
from orchestration.shop.home import Shop

SENSOR = "nights"
"""The sensor that starts the runs of the nights."""

STEP_TAG = "multitron/step"
"""Run tag with the key of the step that the run was requested for; Dagster starts one run per key and attempt."""

WAITS = (dt.timedelta(minutes=5), dt.timedelta(minutes=15), dt.timedelta(minutes=30))
"""Waiting time after the first, second and third transient failure of a step, before it is requested again."""


@dataclass(frozen=True)
class Step:
    """A run that the night needs.

    Args:
        job: name of the job.
        partition: partition key.
        key: identifies the inputs of the run: new inputs make a new step.
    """

    job: str
    partition: str
    key: str


@dataclass(frozen=True)
class Decision:
    """Whether to start a step now, and why not.

    Args:
        step: the step.
        request: the run to start; None to start nothing now.
        why: what the step waits for; empty with a request.
        failure: of the last run of this step, if it is not requested again now.
        running: whether a run of this step is unfinished.
    """

    step: Step
    request: dg.RunRequest | None
    why: str
    failure: RunFailure | None = None
    running: bool = False

    @property
    def pending(self) -> bool:
        """Whether a run of the step is unfinished, or is to be started now."""
        return self.running or self.request is not None


def next_steps(shop: Shop, night: Night) -> list[Step]:
    """The runs that an incomplete night needs now; empty while their inputs are missing.

    Args:
        shop: the shop.
        night: what exists of the night.
    """
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
    """The run that closes a complete night; a night that is released again is closed again.

    Args:
        night: the night.
        published: `published_rows`.
    """
    released = hashlib.sha256(str(published.filter(run_date=night.day)["published_at"].max()).encode()).hexdigest()[:12]
    return Step("night_completion", str(night.day), f"night_completion {night.day} released {released}")


def decide(instance: dg.DagsterInstance, steps: Sequence[Step], night: Night, now: dt.datetime) -> list[Decision]:
    """Decide which steps to start now.

    A step waits while a run of the same job and partition is unfinished, whether a sensor or a person started it. After
    a transient failure it is requested again after `WAITS`. After a permanent failure it is requested again only when
    its inputs, and so its key, change.

    Args:
        instance: where the runs are recorded.
        steps: of the night, in the order of `next_steps`.
        night: the night.
        now: the present, with a time zone.

    Returns:
        One decision per step, in order; steps after a pending ingestion are left out.
    """
    if not steps:
        return []
    history = runs_of(instance, sorted({step.partition for step in steps}))
    decisions: list[Decision] = []
    for step in steps:
        decisions.append(_decide(instance, step, night, history, now))
        if step.job == "ingestion" and decisions[-1].pending:
            break  # the steps after it read the events that it writes
    return decisions


def _decide(
    instance: dg.DagsterInstance, step: Step, night: Night, history: list[PartitionRun], now: dt.datetime
) -> Decision:
    runs = [run for run in history if (run.job, run.partition) == (step.job, step.partition)]
    unfinished = [run for run in runs if run.unfinished]
    if unfinished:
        return Decision(step, None, f"run {unfinished[0].run_id} of {step.job} is running", running=True)
    attempts = [run for run in runs if run.tags.get(STEP_TAG) == step.key]
    if not attempts:
        # The events of the day may have been ingested by hand.
        if step.job == "ingestion" and night.events is not None and not any(STEP_TAG in run.tags for run in runs):
            return Decision(step, None, "the events of the day are ingested")
        return Decision(step, _request(step, 0), "")
    last = attempts[0]
    if not last.failed:
        return Decision(step, None, f"run {last.run_id} has succeeded")
    failure = failure_of(instance, last.run_id)
    if not failure.transient or len(attempts) > len(WAITS):
        return Decision(step, None, failure.what, failure)
    next_attempt = (last.ended or now) + WAITS[len(attempts) - 1]
    if now < next_attempt:
        return Decision(step, None, f"retry at {next_attempt:%H:%M} UTC, after: {failure.what}", failure)
    return Decision(step, _request(step, len(attempts)), "")


def _request(step: Step, attempt: int) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{step.key} attempt {attempt}",
        job_name=step.job,
        partition_key=step.partition,
        tags={STEP_TAG: step.key},
    )
