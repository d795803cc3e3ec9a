from __future__ import annotations

import datetime as dt
import os

import pytest

from orchestration.automation.night import read_night
from orchestration.automation.night_steps import WAITS
from orchestration.runtime import retries
from orchestration.shop.home import load_shop
from tests.orchestration.automation.conftest import execute, requests, waits
from tests.orchestration.conftest import DAYS, GRID, ShopInTest

FIRST = DAYS[0]


def test_decide_ignores_a_bad_delivery_until_it_changes(bare_shop: ShopInTest) -> None:
    file = bare_shop.home / "raw" / f"events-{FIRST}.csv"
    content = file.read_text()
    file.write_text(content.replace("T10", "Tx"))
    os.utime(file, (0, 0))
    assert execute(bare_shop, requests(bare_shop)) == [False]
    assert "180 of 182 lines are bad" in waits(bare_shop)
    file.write_text(content)
    os.utime(file, (1, 1))
    assert execute(bare_shop, requests(bare_shop)) == [True]
    assert [each.job_name for each in requests(bare_shop)] == ["session_preparation"]


def test_next_steps_ingest_a_new_delivery_before_scoring(bare_shop: ShopInTest) -> None:
    for _ in range(2):
        assert execute(bare_shop, requests(bare_shop)) == [True]
    file = bare_shop.home / "raw" / f"events-{FIRST}.csv"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines + [line.replace("s000", "s900") for line in lines if line.startswith("s000")]))
    os.utime(file, (1, 1))
    assert [each.job_name for each in requests(bare_shop)] == ["ingestion"], "scoring waits for the new delivery"
    assert execute(bare_shop, requests(bare_shop)) == [True]
    assert [each.job_name for each in requests(bare_shop)] == ["session_preparation"]
    assert execute(bare_shop, requests(bare_shop)) == [True]
    assert [each.job_name for each in requests(bare_shop)] == ["scoring"] * len(GRID)
    assert read_night(load_shop(bare_shop.home), bare_shop.lake, FIRST).sessions == 61


def test_decide_retries_a_transient_failure_a_few_times(bare_shop: ShopInTest, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        assert all(execute(bare_shop, requests(bare_shop)))
    monkeypatch.setattr(retries, "MAX_RETRIES", 0)  # retries of a step: the night alone retries here
    unreachable = {"scorer": "triton", "urls": ["127.0.0.1:1"], "ready_seconds": 0.1}
    bare_shop.change(night={"catch_up_days": 60}, calendar={"first_day": FIRST, "last_day": FIRST}, triton=unreachable)
    now = dt.datetime.now(dt.UTC)
    keys = set()
    for attempt in range(1 + len(WAITS)):
        requested = [each for each in requests(bare_shop, now) if each.partition_key == f"{FIRST}|0.00"]
        assert len(requested) == 1, attempt
        keys.add(requested[0].run_key)
        assert execute(bare_shop, requested) == [False]
        now = dt.datetime.now(dt.UTC)
        assert not [each for each in requests(bare_shop, now) if each.partition_key == f"{FIRST}|0.00"], "it waits"
        now += dt.timedelta(hours=1)
    assert len(keys) == 1 + len(WAITS)
    assert not [each for each in requests(bare_shop, now) if each.partition_key == f"{FIRST}|0.00"], (
        "no attempt is left"
    )


def test_waits_after_transient_failures() -> None:
    assert [wait.total_seconds() / 60 for wait in WAITS] == [5, 15, 30]
