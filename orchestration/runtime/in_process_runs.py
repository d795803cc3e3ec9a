"""Jobs run to their end in this process, as `make demo` and the shell command run them."""

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
OF_OUR_LOCATION = {".dagster/repository": "__repository__@multitron_batch"}
"""What Dagster tags runs of the location in workspace.yaml with; by it the UI shows a run in its timeline and jobs."""

scoring_listener: ContextVar[Callable[[ScoringProgress], None] | None] = ContextVar("scoring_listener", default=None)
"""Who else hears how far scoring is, beside the run's log: the bar of the shell command, in the same process."""


@contextmanager
def shared_server(
    shop: Shop, step: Callable[[str], AbstractContextManager[None]] = lambda doing: nullcontext()
) -> Iterator[None]:
    """One Triton server for all runs inside, unless the shop has servers or scores in process.

    Args:
        shop: whose.
        step: told what is being done, for the screen.
    """
    if shop.triton_urls or shop.scores_in_process:
        if shop.scores_in_process:
            print("  note: scoring in this process, without a Triton server, as the settings say")
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
    """Run a job to its end, in this process; what `make ui` shows of it is the same as of a scheduled run.

    Args:
        definitions: of the shop.
        instance: keeps the run.
        job: its name.
        started_by: who, as a tag of the run.
        on_step: called with the name of each step that has ended well, and its seconds.
        options: of `JobDefinition.execute_in_process`.

    Raises:
        MultitronError: it failed; the error is the step's own where it is one of ours.
    """
    tags = {RUN_TAG: started_by, **OF_OUR_LOCATION, **options.pop("tags", {})}
    run_id = str(uuid.uuid4())

    def heard(entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if on_step is not None and event is not None and event.is_step_success:
            on_step(str(event.step_key), event.step_success_data.duration_ms / 1000)

    instance.add_event_listener(run_id, heard)
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
            raise _told(failure.error, description, where=f"job {job}, step {event.step_key}", run_id=run_id)
    failed = [
        f"{check.asset_key.to_user_string()}.{check.check_name}"
        for check in result.get_asset_check_evaluations()
        if not check.passed
    ]
    if failed:
        raise MultitronError("checks failed", where=f"job {job}", found=failed, hint=_see(run_id))
    for event in result.all_events:  # something that no step has done: a resource could not be made
        if event.is_failure and event.is_job_event:
            raise _told(event.job_failure_data.error, None, where=f"job {job}", run_id=run_id)
    raise MultitronError("the run failed", where=f"job {job}", hint=_see(run_id))


def _told(error: SerializableErrorInfo | None, description: str | None, *, where: str, run_id: str) -> MultitronError:
    """The error of a run as one of ours: what the step says, else the innermost cause.

    Raises:
        KeyboardInterrupt: it was Ctrl-C.
    """
    cause = error.cause or error if error else None
    if cause is not None and cause.cls_name == "DagsterExecutionInterruptedError":
        raise KeyboardInterrupt
    what = description or (cause.message.strip() if cause else "the run failed")
    return MultitronError(what, where=where, hint=_see(run_id))


def _see(run_id: str) -> str:
    return f"see run {run_id} in `make ui`"
