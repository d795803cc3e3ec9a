"""Run jobs to completion in this process, as `make demo` and the command line do."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import dagster as dg

from multitron_core.errors import MultitronError
from orchestration.runtime.resources import triton_server
from orchestration.shop.home import URL_VARIABLE, Shop
from serving.scorer import ScoringProgress

if TYPE_CHECKING:
    from dagster_shared.error import SerializableErrorInfo

RUN_TAG = "multitron/started_by"
LOCATION_TAG = {".dagster/repository": "__repository__@multitron_batch"}
"""The tag of runs of the code location in workspace.yaml; the UI uses it to list a run under its job and timeline."""

scoring_listener: ContextVar[Callable[[ScoringProgress], None] | None] = ContextVar("scoring_listener", default=None)
"""A further listener to the progress of scoring, besides the run's log: the progress bar of the command line."""


@contextmanager
def shared_server(
    shop: Shop, step: Callable[[str], AbstractContextManager[None]] = lambda doing: nullcontext()
) -> Iterator[None]:
    """Start one Triton server for all runs in the block, unless the shop has server URLs or scores in process.

    Args:
        shop: the shop.
        step: a context manager that is entered with the name of the step while the server starts, for the screen.
    """
    if shop.triton_urls or shop.scores_in_process:
        if shop.scores_in_process:
            print("  note: scoring in this process, without a Triton server (scorer of [triton])")
        yield
        return
    with step("Triton server"):
        server = triton_server(shop).__enter__()
    os.environ[URL_VARIABLE] = server.url
    try:
        yield
    finally:
        del os.environ[URL_VARIABLE]
        server.stop()


def run_job(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    *,
    started_by: str,
    on_step: Callable[[str, float], None] | None = None,
    **options: Any,
) -> None:
    """Run a job to completion in this process. `make ui` shows the run like a scheduled one.

    Args:
        definitions: the definitions of the shop.
        instance: records the run.
        job: the name of the job.
        started_by: the value of the run's tag `RUN_TAG`.
        on_step: called with the name and the duration in seconds of each step that succeeded.
        options: further arguments of `JobDefinition.execute_in_process`.

    Raises:
        MultitronError: the run failed; the text is that of the failed step's error.
        KeyboardInterrupt: the run was interrupted by Ctrl-C.
    """
    tags = {RUN_TAG: started_by, **LOCATION_TAG, **options.pop("tags", {})}
    run_id = str(uuid.uuid4())

    def report_step(entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if on_step is not None and event is not None and event.is_step_success:
            on_step(str(event.step_key), event.step_success_data.duration_ms / 1000)

    instance.add_event_listener(run_id, report_step)
    result = definitions.resolve_job_def(job).execute_in_process(
        instance=instance,
        tags=tags,
        raise_on_error=False,
        run_id=run_id,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        **options,
    )
    if result.success:
        return
    for event in result.all_events:
        if event.is_step_failure:
            failure = event.step_failure_data
            description = failure.user_failure_data.description if failure.user_failure_data else None
            raise _run_error(failure.error, description, where=f"job {job}, step {event.step_key}", run_id=run_id)
    failed = [
        f"{check.asset_key.to_user_string()}.{check.check_name}"
        for check in result.get_asset_check_evaluations()
        if not check.passed
    ]
    if failed:
        raise MultitronError("checks failed", where=f"job {job}", found=failed, hint=_see(run_id))
    for event in result.all_events:  # a failure outside of the steps, for example of a resource
        if event.is_failure and event.is_job_event:
            raise _run_error(event.job_failure_data.error, None, where=f"job {job}", run_id=run_id)
    raise MultitronError("the run failed", where=f"job {job}", hint=_see(run_id))


def _run_error(
    error: SerializableErrorInfo | None, description: str | None, *, where: str, run_id: str
) -> MultitronError:
    """The error of a failed run: the description of the step's failure, else the text of the cause.

    Raises:
        KeyboardInterrupt: the run was interrupted by Ctrl-C.
    """
    cause = error.cause or error if error else None
    if cause is not None and cause.cls_name == "DagsterExecutionInterruptedError":
        raise KeyboardInterrupt
    what = description or (cause.message.strip() if cause else "the run failed")
    return MultitronError(what, where=where, hint=_see(run_id))


def _see(run_id: str) -> str:
    return f"see run {run_id} in `make ui`"
