"""The runs of a partition: which are unfinished, which failed, why, and whether a retry may succeed."""

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
"""Tags of a run over a range of partitions: the first and the last one."""
WILL_RETRY_TAG = "dagster/will_retry"
UNFINISHED = (
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
        step: the step that raised; None if the process of the run died.
        what: the error message; an error of this project includes its hint.
        transient: whether the same run may succeed later although nobody changes anything.
    """

    step: str | None
    what: str
    transient: bool


@dataclass(frozen=True)
class PartitionRun:
    """A run of one partition.

    Args:
        run_id: of the run.
        job: the job whose assets it materializes, see `job_of`.
        partition: partition key; empty for a run without partition.
        status: of the run.
        ended: when it ended (UTC); None while it is unfinished.
        tags: all tags of the run.
    """

    run_id: str
    job: str
    partition: str
    status: DagsterRunStatus
    ended: dt.datetime | None
    tags: dict[str, str]

    @property
    def unfinished(self) -> bool:
        """Whether it is queued or running, or failed and the instance will retry it."""
        return self.status in UNFINISHED or (self.failed and self.tags.get(WILL_RETRY_TAG) == "true")

    @property
    def failed(self) -> bool:
        """Whether it failed or was canceled."""
        return self.status in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)


def runs_of(instance: dg.DagsterInstance, partitions: Sequence[str]) -> list[PartitionRun]:
    """The runs of some partitions, newest first, whether a sensor or a person started them.

    A run that the instance has retried is left out: its retry replaces it.
    """
    records = instance.get_run_records(dg.RunsFilter(tags={PARTITION_TAG: list(partitions)}))
    retried = {record.dagster_run.parent_run_id for record in records}
    return [partition_run(record) for record in records if record.dagster_run.run_id not in retried]


def partition_run(record: dg.RunRecord) -> PartitionRun:
    """A run record of Dagster as a `PartitionRun`."""
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
    """The job whose assets a run materializes, also if they were selected without the job."""
    if run.job_name in JOB_ASSETS:
        return run.job_name
    assets = {key.to_user_string() for key in run.asset_selection or ()}
    # Assets of several jobs can be selected; the run counts for the job that comes last in the night.
    return next((job for job in reversed(JOB_ASSETS) if assets & set(JOB_ASSETS[job])), run.job_name)


def failure_of(instance: dg.DagsterInstance, run_id: str) -> RunFailure:
    """Why a run failed, with secrets redacted.

    Args:
        instance: where the run is recorded.
        run_id: of a failed or canceled run.
    """
    steps = instance.get_records_for_run(run_id, of_type=DagsterEventType.STEP_FAILURE).records
    for record in steps:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        data = event.step_failure_data
        failure = data.user_failure_data
        if failure is not None:
            kind = failure.metadata[KIND].value if KIND in failure.metadata else None
            return RunFailure(event.step_key, redacted(failure.description or "failed"), kind == TRANSIENT)
        cause = data.error.cause or data.error if data.error else None
        # A bug, or a failed blocking check: a retry would fail too.
        return RunFailure(event.step_key, redacted(cause.message.strip() if cause else "the step failed"), False)
    for record in instance.get_records_for_run(run_id, of_type=DagsterEventType.RUN_CANCELED).records:
        return RunFailure(None, redacted(record.event_log_entry.message or "canceled"), False)
    for record in instance.get_records_for_run(run_id, of_type=DagsterEventType.RUN_FAILURE).records:
        return RunFailure(None, redacted(record.event_log_entry.message or "the process of the run died"), True)
    return RunFailure(None, "the process of the run died", True)
