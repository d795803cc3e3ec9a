"""Several nights at several preferences, done again without extra configuration: by the shell command and by Dagster's
own, whose runs the daemon starts. `test_ui_in_browser.py` clicks one through.
"""

from __future__ import annotations

import datetime as dt
import json
import time

import dagster as dg
import pytest
from click.testing import CliRunner

from chaos.daemon import Daemon
from orchestration.automation.run_history import UNFINISHED
from orchestration.cli.app import main
from orchestration.runtime.partitions import night_key
from tests.orchestration.conftest import DAYS, GRID, ShopInTest

pytestmark = pytest.mark.slow
PATIENCE = 300


def released(shop: ShopInTest) -> set[tuple[str, str]]:
    """(night, pi) of the recommendations that readers get."""
    rows = shop.lake.publications("recommendations").select("run_date", "pi").rows()
    return {(str(day), pi) for day, pi in rows}


def test_a_range_of_nights_from_the_shell(shop: ShopInTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be released is, whatever became of the nights beside it, and each failure is told with its reason."""
    monkeypatch.setenv("DAGSTER_HOME", "")  # the command sets both for the processes of its own
    monkeypatch.setenv("MULTITRON_HOME", "")
    range_of_nights = ["--date", str(DAYS[0]), "--until", str(DAYS[-1])]
    told = CliRunner().invoke(main, ["score", *range_of_nights, "--home", str(shop.home), "--json"])
    answer = json.loads(told.stdout)
    assert told.exit_code == 1
    assert set(answer["failed"]) == {f"{DAYS[1]} pi {pi}" for pi in GRID}, "that day has lost half of its sessions"
    assert all("like_the_night_before" in reason for reason in answer["failed"].values())
    assert released(shop) == {(str(day), pi) for day in (DAYS[0], DAYS[2]) for pi in GRID}


def test_a_backfill_through_the_daemon(shop: ShopInTest) -> None:
    """The runbook's command: each (night, pi) is a run of its own."""
    wanted = {(str(DAYS[0]), GRID[0]), (str(DAYS[2]), GRID[1])}
    for day, _ in wanted:
        assert shop.run("session_preparation", day).success
    keys = ",".join(str(night_key(dt.date.fromisoformat(day), pi)) for day, pi in wanted)
    with Daemon(shop.home) as daemon:
        daemon.command("job", "backfill", "-j", "scoring", "--noprompt", "--partitions", keys)
        assert statuses(daemon, len(wanted)) == [dg.DagsterRunStatus.SUCCESS] * len(wanted)
    assert released(shop) == wanted


def statuses(daemon: Daemon, runs: int) -> list[dg.DagsterRunStatus]:
    """How so many runs ended, once they have."""
    end = time.monotonic() + PATIENCE
    with daemon.instance() as instance:
        while len(found := instance.get_runs()) < runs or any(run.status in UNFINISHED for run in found):
            assert time.monotonic() < end, [(run.job_name, run.status) for run in found]
            time.sleep(0.5)
    return [run.status for run in found]
