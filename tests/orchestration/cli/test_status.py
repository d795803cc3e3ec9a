from __future__ import annotations

import datetime as dt
import json

from orchestration.automation.status import NightStatus, PreferenceStatus, Standstill, Status
from orchestration.cli.status import as_json, as_text

DAY = dt.date(2026, 3, 1)
DEADLINE = dt.datetime(2026, 3, 2, 6, tzinfo=dt.UTC)
PUBLISHED = PreferenceStatus("0.00", "published", "", "abc", DEADLINE - dt.timedelta(hours=2), "")
FAILED = PreferenceStatus("0.50", "failed", "scoring: no answer", None, None, "dagster x")
STATUS = Status(
    (NightStatus(DAY, DEADLINE, False, (PUBLISHED, FAILED)), NightStatus(DAY, DEADLINE, True, (PUBLISHED,))),
    (Standstill("the daemon is not running", ("make ui", "dagster-daemon run")),),
)


def test_as_text_shows_states_reasons_and_commands() -> None:
    assert as_text(STATUS).splitlines() == [
        "2026-03-01  1 published, 1 failed  (deadline 2026-03-02 06:00 UTC)",
        "  published  pi 0.00  model abc  03-02 04:00",
        "  failed     pi 0.50",
        "             reason: scoring: no answer",
        "             re-run: dagster x",
        "2026-03-01  complete  (deadline 2026-03-02 06:00 UTC)",
        "  published  pi 0.00  model abc  03-02 04:00",
        "no night starts automatically",
        "             reason: the daemon is not running",
        "             run:    make ui",
        "             or:     dagster-daemon run",
    ]
    assert as_text(Status((), ())) == "no nights yet"


def test_as_json_has_the_same_fields() -> None:
    parsed = json.loads(as_json(STATUS))
    assert parsed["late"] is True
    assert [night["day"] for night in parsed["nights"]] == [str(DAY)] * 2
    assert parsed["nights"][0]["preferences"][1] == {
        "pi": "0.50",
        "state": "failed",
        "why": "scoring: no answer",
        "model_version": None,
        "published_at": None,
        "command": "dagster x",
    }
    assert parsed["standstills"][0]["commands"] == ["make ui", "dagster-daemon run"]
