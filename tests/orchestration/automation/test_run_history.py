from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from orchestration.automation.run_history import WILL_RETRY_TAG, PartitionRun, failure_of, job_of, runs_of
from orchestration.runtime.partitions import PARTITION_TAG
from tests.orchestration.conftest import DAYS, ShopInTest

DAY = str(DAYS[0])


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def add_run(instance: dg.DagsterInstance, job: str, **options: Any) -> dg.DagsterRun:
    return instance.add_run(dg.DagsterRun(job_name=job, run_id=dg.DagsterRun(job_name=job).run_id, **options))


def test_runs_of_replace_a_retried_run_by_its_retry(instance: dg.DagsterInstance) -> None:
    tags = {PARTITION_TAG: DAY}
    first = add_run(instance, "ingestion", tags=tags, status=dg.DagsterRunStatus.FAILURE)
    retry = add_run(instance, "ingestion", tags=tags, parent_run_id=first.run_id, root_run_id=first.run_id)
    add_run(instance, "ingestion", tags={PARTITION_TAG: str(DAYS[1])})
    (run,) = runs_of(instance, [DAY])
    assert (run.run_id, run.job, run.partition) == (retry.run_id, "ingestion", DAY)
    assert run.unfinished
    assert not run.failed


def test_partition_run_is_unfinished_until_its_announced_retry() -> None:
    failed = PartitionRun("r", "scoring", DAY, dg.DagsterRunStatus.FAILURE, None, {})
    assert (failed.failed, failed.unfinished) == (True, False)
    announced = PartitionRun("r", "scoring", DAY, dg.DagsterRunStatus.FAILURE, None, {WILL_RETRY_TAG: "true"})
    assert (announced.failed, announced.unfinished) == (True, True)


def test_job_of_selected_assets_is_the_last_job_of_the_night() -> None:
    selected = frozenset({dg.AssetKey("events"), dg.AssetKey("scoring_sessions")})
    assert job_of(dg.DagsterRun(job_name="__ASSET_JOB", asset_selection=selected)) == "session_preparation"
    assert job_of(dg.DagsterRun(job_name="scoring")) == "scoring"


def test_failure_of_a_run_whose_process_died_is_transient(instance: dg.DagsterInstance) -> None:
    run = add_run(instance, "scoring", status=dg.DagsterRunStatus.STARTED)
    instance.report_run_failed(run, message="The process was killed.")
    failure = failure_of(instance, run.run_id)
    assert (failure.step, failure.what, failure.transient) == (None, "The process was killed.", True)


def test_failure_of_bad_input_names_its_step_and_hint(bare_shop: ShopInTest) -> None:
    result = bare_shop.run("session_preparation", DAY)
    failure = failure_of(bare_shop.instance, result.run_id)
    assert failure.step == "scoring_sessions"
    assert "hint:" in failure.what
    assert not failure.transient
