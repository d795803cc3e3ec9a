import dagster as dg
import pytest

from multitron_core.errors import InputError, UnavailableError
from orchestration.runtime.retries import KIND, MAX_RETRIES, PERMANENT, failures


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (InputError("a bad line", where="f.csv:3", found="x", hint="fix it"), 1),
        (UnavailableError("no answer", where="127.0.0.1:1"), 1 + MAX_RETRIES),
        (ZeroDivisionError("a bug"), 1),
    ],
)
def test_failures_retries_only_unavailable_errors(error: Exception, attempts: int) -> None:
    made: list[int] = []

    @dg.asset
    def failing(context: dg.AssetExecutionContext) -> None:
        made.append(1)
        with failures(context, first_delay=0.01):
            raise error

    result = dg.materialize([failing], raise_on_error=False)
    assert not result.success
    assert len(made) == attempts


def test_failures_shows_the_parts_of_a_permanent_error() -> None:
    @dg.asset
    def failing(context: dg.AssetExecutionContext) -> None:
        with failures(context, first_delay=0.01):
            raise InputError("a bad line", where="f.csv:3", found="x;y", hint="fix it")

    result = dg.materialize([failing], raise_on_error=False)
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None
    assert "f.csv:3" in str(data.description)
    assert {name: value.text for name, value in data.metadata.items()} == {
        "what": "a bad line",
        "where": "f.csv:3",
        "found": "x;y",
        "hint": "fix it",
        KIND: PERMANENT,
    }
