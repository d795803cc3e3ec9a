"""What Dagster's runs did for a night: which are at work, which failed, why, and whether it may pass by itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus

from multitron_core.utils.redaction import redacted
from orchestration.automation.jobs import JOB_ASSETS
from orchestration.runtime.partitions import PARTITION_TAG
from orchestration.runtime.retries import KIND, TRANSIENT

RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
"""Of a run that does a range of partitions at once."""
WILL_RETRY_TAG = "dagster/will_retry"
AT_WORK = (
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
)


@dataclass(frozen=True)
class RunFailure:
    """Why a run failed.

    Args:
        step: the step that raised; None where the run's process died.
        what: the error, with its mend where it is one of ours.
        transient: whether the same run may succeed later without anybody's doing.
    """

    step: str | None
    what: str
    transient: bool


@dataclass(frozen=True)
class PartitionRun:
    """A run of one partition."""

    run_id: str
    job: str
    partition: str
    status: DagsterRunStatus
    ended: dt.datetime | None
    tags: dict[str, str]

    @property
    def at_work(self) -> bool:
        """Whether it waits, runs, or is about to be started again by the instance."""
        return self.status in AT_WORK or (self.failed and self.tags.get(WILL_RETRY_TAG) == "true")

    @property
    def failed(self) -> bool:
        """Whether it ended without success."""
        return self.status in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)


def runs_of(instance: dg.DagsterInstance, partitions: Sequence[str]) -> list[PartitionRun]:
    """The runs of some partitions, whoever started them, the newest first.

    A run that the instance has started again is left out: its successor speaks for it.
    """
    records = instance.get_run_records(dg.RunsFilter(tags={PARTITION_TAG: list(partitions)}))
    again = {record.dagster_run.parent_run_id for record in records}
    return [partition_run(record) for record in records if record.dagster_run.run_id not in again]


def partition_run(record: dg.RunRecord) -> PartitionRun:
    """A run record in our terms."""
    run = record.dagster_run
    return PartitionRun(
        run_id=run.run_id,
        job=job_of(run),
        partition=run.tags.get(PARTITION_TAG, ""),
        status=run.status,
        ended=dt.datetime.fromtimestamp(record.end_time, dt.UTC) if record.end_time else None,
        tags=dict(run.tags),
    )


def job_of(run: dg.DagsterRun) -> str:
    """The job whose work a run does, also where somebody materialized its assets without naming the job."""
    if run.job_name in JOB_ASSETS:
        return run.job_name
    assets = {key.to_user_string() for key in run.asset_selection or ()}
    # A person may pick the assets of several jobs; the run counts as the one that comes last in the night.
    return next((job for job in reversed(JOB_ASSETS) if assets & set(JOB_ASSETS[job])), run.job_name)


def failure_of(instance: dg.DagsterInstance, run_id: str) -> RunFailure:
    """Why a failed run failed; secrets are blacked out."""
    steps = instance.get_records_for_run(run_id, of_type=DagsterEventType.STEP_FAILURE).records
    for record in steps:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        data = event.step_failure_data
        told = data.user_failure_data
        if told is not None:
            kind = told.metadata[KIND].value if KIND in told.metadata else None
            return RunFailure(event.step_key, redacted(told.description or "failed"), kind == TRANSIENT)
        cause = data.error.cause or data.error if data.error else None
        # A bug, or a blocking check that failed: the same again would fail again.
        return RunFailure(event.step_key, redacted(cause.message.strip() if cause else "the step failed"), False)
    for record in instance.get_records_for_run(run_id, of_type=DagsterEventType.RUN_CANCELED).records:
        return RunFailure(None, redacted(record.event_log_entry.message or "canceled by a person"), False)
    for record in instance.get_records_for_run(run_id, of_type=DagsterEventType.RUN_FAILURE).records:
        return RunFailure(None, redacted(record.event_log_entry.message or "its process died"), True)
    return RunFailure(None, "its process died", True)
