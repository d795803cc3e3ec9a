"""A live model that has lost its front on the day's sessions is trained anew, once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from multitron_core.front.decay import LEAST_SESSIONS
from orchestration.code_location import build_definitions
from orchestration.shop.home import load_shop
from tests.orchestration.conftest import DAYS, ITEMS, ShopInTest, copied_shop

DAY = DAYS[0]


def write_day(shop: ShopInTest, sessions: int) -> None:
    """A day of sessions of three clicks, in place of the shop's own."""
    rows = [
        (f"s{session}", 1000 + (7 * session + 3 * click) % ITEMS, f"{DAY}T10:{session % 60:02}:{click:02}", "click")
        for session in range(sessions)
        for click in range(3)
    ]
    file = shop.home / "raw" / f"events-{DAY}.csv"
    pl.DataFrame(rows, schema=["session_id", "item_id", "ts", "event_type"], orient="row").write_csv(file)
    os.utime(file, (0, 0))


@pytest.fixture
def shop(deployed_home: Path, tmp_path: Path) -> Iterator[ShopInTest]:
    with copied_shop(deployed_home, tmp_path / "shop") as shop:
        yield shop


def measure(shop: ShopInTest, sessions: int) -> dg.ExecuteInProcessResult:
    """The live model's front on a day of so many sessions."""
    write_day(shop, sessions)
    assert shop.run("ingestion", str(DAY)).success
    assert shop.run("session_preparation", str(DAY)).success
    return shop.run("night_completion", str(DAY), asset_selection=[dg.AssetKey("live_front")])


def asked(shop: ShopInTest) -> list[dg.RunRequest]:
    definitions = build_definitions(load_shop(shop.home))
    sensor = definitions.resolve_sensor_def("decayed_model")
    with dg.build_sensor_context(instance=shop.instance, definitions=definitions) as context:
        return list(sensor.evaluate_tick(context).run_requests or [])


def holds(result: dg.ExecuteInProcessResult) -> bool:
    (check,) = result.get_asset_check_evaluations()
    assert check.check_name == "front_holds"
    return check.passed


def test_a_model_that_was_never_measured_is_left_alone(shop: ShopInTest) -> None:
    assert asked(shop) == []


def test_a_decayed_model_is_trained_anew_once(shop: ShopInTest) -> None:
    """The model of random weights is far from the front that is written beside it."""
    result = measure(shop, LEAST_SESSIONS)
    assert result.success, "a decayed model still answers: the check warns"
    assert not holds(result)
    (request,) = asked(shop)
    assert request.job_name in (None, "training")
    assert request.tags["multitron/reason"] == "decay"
    assert asked(shop)[0].run_key == request.run_key, "Dagster starts a key once"
    assert "random" in request.run_key


def test_within_the_tolerance_nothing_is_trained(shop: ShopInTest) -> None:
    shop.change(model={"max_decay": 1.0})
    assert holds(measure(shop, LEAST_SESSIONS))
    assert asked(shop) == []


def test_a_day_of_few_sessions_decides_nothing(shop: ShopInTest) -> None:
    assert holds(measure(shop, LEAST_SESSIONS - 1))
    assert asked(shop) == []
