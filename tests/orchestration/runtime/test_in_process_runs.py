from __future__ import annotations

import dagster as dg
import pytest

from multitron_core.errors import MultitronError
from orchestration.runtime.in_process_runs import RUN_TAG, run_job


class Absent(dg.ConfigurableResource):
    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        raise RuntimeError("no such host")


@dg.asset
def needs_a_resource(absent: Absent) -> int:
    return 1


@dg.asset
def fails() -> int:
    raise dg.Failure("the disk is full")


@dg.asset(check_specs=[dg.AssetCheckSpec("is_large", asset="small", blocking=True)])
def small() -> dg.MaterializeResult:
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=False)])


@dg.asset(deps=[small])
def downstream() -> int:
    return 1


JOBS = {"resource": ["needs_a_resource"], "step": ["fails"], "check": ["small", "downstream"]}


@pytest.mark.parametrize(
    ("job", "text"),
    [
        ("resource", r"no such host.*job resource;.*see run"),
        ("step", r"the disk is full.*job step, step fails.*see run"),
        ("check", r"is_large"),
    ],
)
def test_run_job_raises_the_cause_of_a_failed_run(job: str, text: str) -> None:
    definitions = dg.Definitions(
        assets=[needs_a_resource, fails, small, downstream],
        jobs=[dg.define_asset_job(name, assets) for name, assets in JOBS.items()],
        resources={"absent": Absent()},
    )
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(MultitronError, match=text):
        run_job(definitions, instance, job, started_by="test")


def test_run_job_reports_the_steps_that_succeeded() -> None:
    steps: dict[str, float] = {}
    definitions = dg.Definitions(assets=[downstream, small], jobs=[dg.define_asset_job("one", ["downstream"])])
    with dg.DagsterInstance.ephemeral() as instance:
        run_job(definitions, instance, "one", started_by="test", on_step=steps.__setitem__)
        (run,) = instance.get_runs()
    assert list(steps) == ["downstream"]
    assert run.tags[RUN_TAG] == "test"
