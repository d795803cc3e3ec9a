from __future__ import annotations

import dagster as dg
import pytest

from multitron_core.errors import InputError, MultitronError, UnavailableError
from orchestration.retries import permanent_failures

QUICK = dg.RetryPolicy(max_retries=2)


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (InputError("a bad line", where="f.csv:3", found="x", mend="mend it"), 1),
        (UnavailableError("no answer", where="127.0.0.1:1"), 3),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(error: MultitronError, attempts: int) -> None:
    made = []

    @dg.asset(retry_policy=QUICK)
    def failing() -> None:
        made.append(1)
        with permanent_failures():
            raise error

    result = dg.materialize([failing], raise_on_error=False)
    assert not result.success
    assert len(made) == attempts


def test_a_permanent_failure_shows_its_parts() -> None:
    @dg.asset
    def failing() -> None:
        with permanent_failures():
            raise InputError("a bad line", where="f.csv:3", found="x;y", mend="mend it")

    result = dg.materialize([failing], raise_on_error=False)
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert "f.csv:3" in data.description
    assert {name: value.text for name, value in data.metadata.items()} == {
        "what": "a bad line",
        "where": "f.csv:3",
        "found": "x;y",
        "mend": "mend it",
    }
