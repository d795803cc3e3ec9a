"""The retry matrix: the number of attempts for each class of fault, at each layer."""

import errno
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from multitron_core.errors import InputError, UnavailableError
from multitron_core.lake import delta_stream
from multitron_core.lake.lake import Lake
from multitron_core.utils.library_errors import translate_error
from orchestration.automation.run_history import failure_of
from orchestration.runtime.instance import TEMPLATE
from orchestration.runtime.retries import KIND, MAX_RETRIES, PERMANENT, TRANSIENT, failures


@dataclass(frozen=True)
class Row:
    """A class of faults: how it is raised, the attempts of a step, and whether the night retries it."""

    name: str
    raises: Callable[[], None]
    step_attempts: int
    night_retries: bool


class Overloaded(http.server.BaseHTTPRequestHandler):
    """An object store that answers every request with 503."""

    def answer(self) -> None:
        self.send_response(503)
        self.end_headers()

    do_GET = do_PUT = do_HEAD = do_POST = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Overloaded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ALLOW_HTTP": "true",
        "max_retries": "0",
        "retry_timeout": "1s",
    }
    server.shutdown()


def raising(error: Exception) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


ROWS = (
    Row("server restarting", raising(UnavailableError("the Triton server does not answer")), 1 + MAX_RETRIES, True),
    Row("commit conflict", raising(CommitFailedError("a concurrent transaction")), 1 + MAX_RETRIES, True),
    Row("bad input", raising(InputError("180 of 182 lines are bad")), 1, False),
    Row("failed gate", raising(InputError("the model is worse than popularity")), 1, False),
    Row("contract broken", raising(InputError("the table has another contract")), 1, False),
    Row("full disk", raising(OSError(errno.ENOSPC, "No space left on device", "/lake/x")), 1, False),
    Row("no right to write", raising(PermissionError(errno.EACCES, "Permission denied", "/lake")), 1, False),
    Row("a bug", raising(ZeroDivisionError("division by zero")), 1, False),
)


def run_failing(raises: Callable[[], object], instance: dg.DagsterInstance) -> tuple[dg.ExecuteInProcessResult, int]:
    """Run an asset that raises; returns the result of the run and the number of attempts."""
    attempts = []

    @dg.asset
    def failing(context: dg.AssetExecutionContext) -> None:
        attempts.append(1)
        with failures(context, first_delay=0.01):
            raises()

    return dg.materialize([failing], raise_on_error=False, instance=instance), len(attempts)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_failures_retry_each_class_of_fault_as_declared(row: Row) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result, attempts = run_failing(row.raises, instance)
        assert not result.success
        assert attempts == row.step_attempts
        assert failure_of(instance, result.run_id).transient == row.night_retries
        event = next(event for event in result.all_events if event.is_step_failure)
        failure = event.step_failure_data.user_failure_data
        if failure is not None:
            assert failure.metadata[KIND].value == (TRANSIENT if row.night_retries else PERMANENT)


def test_failures_retry_an_overloaded_object_store(store: dict[str, str]) -> None:
    calls = (
        lambda: DeltaTable("s3://bucket/table", storage_options=store),
        lambda: Lake("s3://bucket", store).publications(),
        lambda: pl.scan_delta("s3://bucket/table", storage_options=store).collect(),
    )
    for call in calls:
        with pytest.raises(OSError, match="503") as raised:
            call()
        assert isinstance(translate_error(raised.value), UnavailableError)
    with dg.DagsterInstance.ephemeral() as instance:
        result, attempts = run_failing(calls[0], instance)
        assert attempts == 1 + MAX_RETRIES
        assert failure_of(instance, result.run_id).transient


def test_replace_rows_repeats_a_write_that_lost_a_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, tries = Lake(tmp_path), list[int]()

    def lose(*_: object, **__: object) -> None:
        tries.append(1)
        raise CommitFailedError("another commit was faster")

    lake.replace_rows("figures", pl.DataFrame({"a": [1]}))
    # Five lost races in a row cannot be provoked by real writers in a test.
    monkeypatch.setattr(delta_stream, "write_deltalake", lose)
    monkeypatch.setattr(delta_stream.time, "sleep", lambda _: None)
    with pytest.raises(UnavailableError):
        lake.replace_rows("figures", pl.DataFrame({"a": [2]}))
    assert len(tries) == delta_stream.ATTEMPTS == 5


def test_dagster_yaml_retries_dead_runs_but_not_failed_steps() -> None:
    declared = yaml.safe_load(TEMPLATE.read_text())
    assert declared["run_retries"] == {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}
    assert declared["run_monitoring"]["enabled"]
