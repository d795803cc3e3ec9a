"""The next step of a night, decided from what its partitions need."""

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
"""The sensor that drives the nights."""


STEP_TAG = "multitron/step"
"""Run tag: what exactly a run of the night was asked to do. Asked twice for the same, Dagster starts one run."""


WAITS = (dt.timedelta(minutes=5), dt.timedelta(minutes=15), dt.timedelta(minutes=30))
"""How long after a failure that may pass by itself the same step is asked for again."""


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
