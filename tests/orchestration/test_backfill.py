"""Several nights at several preferences by one shell command; `test_ui_in_browser.py` tests backfills by the daemon."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from orchestration.cli.app import main
from tests.orchestration.conftest import DAYS, GRID, ShopInTest


@pytest.mark.slow
def test_score_releases_each_night_that_passes_its_checks(shop: ShopInTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")  # the command sets both variables; restored after the test
    monkeypatch.setenv("MULTITRON_HOME", "")
    range_of_nights = ["--date", str(DAYS[0]), "--until", str(DAYS[-1])]
    result = CliRunner().invoke(main, ["score", *range_of_nights, "--home", str(shop.home), "--json"])
    answer = json.loads(result.stdout)
    assert result.exit_code == 1
    assert set(answer["failed"]) == {f"{DAYS[1]} pi {pi}" for pi in GRID}, "that day has lost half of its sessions"
    assert all("like_the_night_before" in reason for reason in answer["failed"].values())
    released = shop.lake.publications("recommendations").select("run_date", "pi").rows()
    assert set(released) == {(day, pi) for day in (DAYS[0], DAYS[2]) for pi in GRID}
