from __future__ import annotations

import dagster as dg
import pytest

from multitron_core.errors import MultitronError
from orchestration.runtime.in_process_runs import run_job


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
def behind() -> int:
    return 1


JOBS = {"resource": ["needs_a_resource"], "step": ["fails"], "check": ["small", "behind"]}


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ("resource", r"no such host.*job resource;.*see run"),
        ("step", r"the disk is full.*job step, step fails.*see run"),
        ("check", r"is_large"),
    ],
)
def test_a_run_that_fails_tells_its_cause(job: str, told: str) -> None:
    definitions = dg.Definitions(
        assets=[needs_a_resource, fails, small, behind],
        jobs=[dg.define_asset_job(name, assets) for name, assets in JOBS.items()],
        resources={"absent": Absent()},
    )
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(MultitronError, match=told):
        run_job(definitions, instance, job, started_by="test")
