"""Real runs of the asset `live_front`: a model whose front decayed on the day's sessions is retrained, once."""

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
    """Replace the raw events of the day by sessions of three clicks."""
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
    """Measure the live model's front on a day with this number of sessions."""
    write_day(shop, sessions)
    assert shop.run("ingestion", str(DAY)).success
    assert shop.run("session_preparation", str(DAY)).success
    return shop.run("night_completion", str(DAY), asset_selection=[dg.AssetKey("live_front")])


def requests_of_sensor(shop: ShopInTest) -> list[dg.RunRequest]:
    definitions = build_definitions(load_shop(shop.home))
    sensor = definitions.resolve_sensor_def("decayed_model")
    with dg.build_sensor_context(instance=shop.instance, definitions=definitions) as context:
        return list(sensor.evaluate_tick(context).run_requests or [])


def holds(result: dg.ExecuteInProcessResult) -> bool:
    (check,) = result.get_asset_check_evaluations()
    assert check.check_name == "front_holds"
    return check.passed


def test_decayed_model_ignores_a_model_never_measured(shop: ShopInTest) -> None:
    assert requests_of_sensor(shop) == []


def test_decayed_model_trains_a_decayed_model_once(shop: ShopInTest) -> None:
    """The model has random weights, and the front in its folder is far better than what it reaches."""
    result = measure(shop, LEAST_SESSIONS)
    assert result.success, "the check only warns: a decayed model stays live"
    assert not holds(result)
    (request,) = requests_of_sensor(shop)
    assert request.job_name in (None, "training")
    assert request.tags["multitron/reason"] == "decay"
    assert requests_of_sensor(shop)[0].run_key == request.run_key, "Dagster starts one run per key"
    assert "random" in str(request.run_key)


def test_decayed_model_trains_nothing_within_max_decay(shop: ShopInTest) -> None:
    shop.change(model={"max_decay": 1.0})
    assert holds(measure(shop, LEAST_SESSIONS))
    assert requests_of_sensor(shop) == []


def test_live_front_of_few_sessions_never_decays(shop: ShopInTest) -> None:
    assert holds(measure(shop, LEAST_SESSIONS - 1))
    assert requests_of_sensor(shop) == []
