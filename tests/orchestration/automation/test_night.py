"""The night as a whole: each test lets the sensor's plan drive real runs."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from orchestration.automation.night import missing_of, published_rows, read_night
from orchestration.automation.night_steps import STEP_TAG, WAITS
from orchestration.automation.run_history import failure_of
from orchestration.automation.sensors import plan
from orchestration.shop import models
from orchestration.shop.calendar import open_nights
from orchestration.shop.home import load_shop
from serving.deployment import deploy
from serving.in_process import InProcessServer
from tests.orchestration.conftest import DAYS, GRID, K, ShopInTest, copied_shop, write_random_model

FIRST = DAYS[0]
MORNING = dt.datetime(2026, 3, 2, 2, tzinfo=dt.UTC)  # after the night of the first day has begun


@pytest.fixture
def shop(deployed_home: Path, tmp_path: Path) -> Iterator[ShopInTest]:
    """A shop of its own, with nothing in its event log."""
    with copied_shop(deployed_home, tmp_path / "shop") as shop:
        shop.change(night={"catch_up_days": 1})
        yield shop


def requests(shop: ShopInTest, now: dt.datetime = MORNING) -> list[dg.RunRequest]:
    return plan(load_shop(shop.home), shop.instance, now)[0]


def waits(shop: ShopInTest, now: dt.datetime = MORNING) -> str:
    asked, told = plan(load_shop(shop.home), shop.instance, now)
    assert not asked
    return "\n".join(told)


def execute(shop: ShopInTest, asked: list[dg.RunRequest]) -> list[bool]:
    return [shop.run(each.job_name, each.partition_key, tags=dict(each.tags)).success for each in asked]


def test_a_night_goes_its_way_without_a_hand(shop: ShopInTest) -> None:
    way = []
    while asked := requests(shop):
        way.append([(each.job_name, str(each.partition_key)) for each in asked])
        assert all(execute(shop, asked))
    day = str(FIRST)
    assert way == [
        [("ingestion", day)],
        [("session_preparation", day)],
        [("scoring", f"{day}|{pi}") for pi in GRID],
        [("night_completion", day)],
    ]
    assert waits(shop) == "every open night is complete"
    assert shop.lake.read_recommendations("0.50")["run_date"].unique().to_list() == [FIRST]


def test_what_is_late_is_waited_for_and_yesterday_is_not_taken_for_today(shop: ShopInTest) -> None:
    while asked := requests(shop):
        assert all(execute(shop, asked))
    late = shop.home / "raw" / f"events-{DAYS[1]}.csv"
    content = late.read_text()
    late.unlink()
    next_morning = MORNING + dt.timedelta(days=1)
    assert f"no table file of {DAYS[1]}" in waits(shop, next_morning)
    assert not shop.run("session_preparation", str(DAYS[1])).success, "by hand it is refused, too"
    assert shop.lake.publications()["run_date"].unique().to_list() == [FIRST]
    late.write_text(content)
    assert "a moment ago" in waits(shop, next_morning)
    os.utime(late, (0, 0))
    assert [each.job_name for each in requests(shop, next_morning)] == ["ingestion"]


def test_a_bad_delivery_is_not_tried_again_until_it_is_another(shop: ShopInTest) -> None:
    file = shop.home / "raw" / f"events-{FIRST}.csv"
    content = file.read_text()
    file.write_text(content.replace("T10", "Tx"))
    os.utime(file, (0, 0))
    assert execute(shop, requests(shop)) == [False]
    assert "180 of 182 lines are bad" in waits(shop)
    file.write_text(content)
    os.utime(file, (1, 1))
    assert execute(shop, requests(shop)) == [True]
    assert [each.job_name for each in requests(shop)] == ["session_preparation"]


def test_a_day_that_is_delivered_again_before_it_is_published_is_made_anew(shop: ShopInTest) -> None:
    assert execute(shop, requests(shop)) == [True]
    assert execute(shop, requests(shop)) == [True]
    file = shop.home / "raw" / f"events-{FIRST}.csv"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines + [line.replace("s000", "s900") for line in lines if line.startswith("s000")]))
    os.utime(file, (1, 1))
    assert [each.job_name for each in requests(shop)] == ["ingestion"], "scoring waits for the new delivery"
    assert execute(shop, requests(shop)) == [True]
    assert [each.job_name for each in requests(shop)] == ["session_preparation"]
    assert execute(shop, requests(shop)) == [True]
    asked = requests(shop)
    assert [each.job_name for each in asked] == ["scoring"] * len(GRID)
    assert read_night(load_shop(shop.home), shop.lake, FIRST).sessions == 61


def test_what_may_pass_by_itself_is_asked_for_again_later_and_not_for_ever(
    shop: ShopInTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert all(execute(shop, requests(shop)))
    monkeypatch.setattr("orchestration.runtime.retries.FIRST_DELAY", 0.01)
    monkeypatch.setattr("orchestration.runtime.retries.MAX_RETRIES", 0)
    monkeypatch.setenv("MULTITRON_SCORER", "triton")
    monkeypatch.setenv("MULTITRON_TRITON_URL", "127.0.0.1:1")
    monkeypatch.setattr("serving.server.TritonServer.__enter__", _unavailable)
    now = dt.datetime.now(dt.UTC)
    shop.change(night={"catch_up_days": 60}, calendar={"first_day": FIRST, "last_day": FIRST})
    keys = set()
    for attempt in range(1 + len(WAITS)):
        asked = [each for each in requests(shop, now) if each.partition_key == f"{FIRST}|0.00"]
        assert len(asked) == 1, attempt
        keys.add(asked[0].run_key)
        assert execute(shop, asked) == [False]
        now = dt.datetime.now(dt.UTC)
        assert not [each for each in requests(shop, now) if each.partition_key == f"{FIRST}|0.00"], "it waits"
        now += dt.timedelta(hours=1)
    assert len(keys) == 1 + len(WAITS)
    assert not [each for each in requests(shop, now) if each.partition_key == f"{FIRST}|0.00"], "bounded"


def _unavailable(server: object) -> None:
    from multitron_core.errors import UnavailableError

    raise UnavailableError("the Triton server does not answer")


def test_a_model_that_is_deployed_within_a_night_scores_the_whole_night(shop: ShopInTest) -> None:
    for _ in range(2):
        assert all(execute(shop, requests(shop)))
    first, *_ = requests(shop)
    assert execute(shop, [first]) == [True]
    loaded = load_shop(shop.home)
    write_random_model(loaded.models / "other", version="other")
    models.set_newest(loaded, loaded.models / "other")
    with InProcessServer(loaded.triton_repository) as server:
        deploy(loaded.models / "other", server, golden_pi=GRID, golden_k=K)
    while asked := requests(shop):
        assert all(execute(shop, asked)), [
            failure_of(shop.instance, record.dagster_run.run_id)
            for record in shop.instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        ]
    assert shop.lake.publications()["model_version"].unique().to_list() == ["other"]


def test_two_looks_ask_for_the_same_runs_under_the_same_keys(shop: ShopInTest) -> None:
    first, second = requests(shop), requests(shop)
    assert [each.run_key for each in first] == [each.run_key for each in second]
    assert all(each.tags[STEP_TAG] for each in first)


def test_open_nights_have_begun_and_lie_in_the_calendar(shop: ShopInTest) -> None:
    loaded = load_shop(shop.home)
    assert open_nights(loaded, dt.datetime(2026, 3, 2, 0, 59, tzinfo=dt.UTC)) == []
    assert open_nights(loaded, MORNING) == [FIRST]
    shop.change(night={"catch_up_days": 2})
    loaded = load_shop(shop.home)
    assert open_nights(loaded, MORNING) == [FIRST]
    assert open_nights(loaded, dt.datetime(2026, 6, 1, tzinfo=dt.UTC)) == [DAYS[1], DAYS[2]], "the calendar ends"


def test_a_shop_without_tables_misses_everything(shop: ShopInTest) -> None:
    none = published_rows(shop.lake)
    assert none.is_empty()
    assert set(missing_of(GRID, none, None, None)) == set(GRID)
