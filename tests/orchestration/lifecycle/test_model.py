from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from multitron_core.events.ingestion import ingest
from orchestration.lifecycle.model import deploy_model, live_of, measure_live_front, preset_of
from orchestration.shop.home import Shop, load_shop
from orchestration.shop.settings import Settings, demo_settings
from orchestration.shop.sources import raw_source
from serving.in_process import InProcessServer
from tests.orchestration.conftest import DAYS, ITEMS, ShopInTest, copied_shop

DAY = DAYS[0]


@pytest.fixture
def shop(deployed_home: Path, tmp_path: Path) -> Iterator[ShopInTest]:
    with copied_shop(deployed_home, tmp_path / "shop") as shop:
        yield shop


def ingest_sessions(shop: Shop, day: dt.date, sessions: int, clicks: int) -> None:
    """Replace the events of a day by sessions of this many clicks."""
    rows = [
        (f"s{session}", 1000 + (7 * session + 3 * click) % ITEMS, f"{day}T10:{session % 60:02}:{click:02}", "click")
        for session in range(sessions)
        for click in range(clicks)
    ]
    file = shop.home / "raw" / f"events-{day}.csv"
    pl.DataFrame(rows, schema=["session_id", "item_id", "ts", "event_type"], orient="row").write_csv(file)
    os.utime(file, (0, 0))  # an old file is complete
    ingest(raw_source(shop), shop.lake(), first=day, last=day)


def test_preset_of_applies_the_training_settings() -> None:
    model = {"preset": "demo", "training": {"epochs": 3}}
    preset = preset_of(Settings.model_validate({**demo_settings().model_dump(), "model": model}))
    assert (preset.name, preset.training.schedule.epochs) == ("demo", 3)


def test_deploy_model_is_none_for_the_live_model(shop: ShopInTest) -> None:
    loaded = load_shop(shop.home)
    with InProcessServer(loaded.triton_repository) as server:
        assert deploy_model(loaded, loaded.models / "random", server) is None


def test_live_of_is_none_without_a_deployment(tmp_path: Path) -> None:
    with InProcessServer(tmp_path / "triton") as server:
        assert live_of(server) is None


def test_measure_live_front_of_single_clicks_has_no_rows(shop: ShopInTest) -> None:
    loaded = load_shop(shop.home)
    ingest_sessions(loaded, DAY, sessions=5, clicks=1)
    front = measure_live_front(loaded, DAY)
    assert (front.model_version, front.sessions, front.decay, front.decayed) == ("random", 0, None, False)
    assert front.measured.is_empty()
    assert front.measured.schema == front.trained.schema


def test_measure_live_front_is_at_the_preferences_of_training(shop: ShopInTest) -> None:
    loaded = load_shop(shop.home)
    ingest_sessions(loaded, DAY, sessions=20, clicks=3)
    front = measure_live_front(loaded, DAY)
    assert front.sessions == 20
    assert front.measured["pi_order"].to_list() == front.trained["pi_order"].to_list()
    assert front.decay is not None
    assert front.decay.known_share == 1.0
    assert not front.decayed, "20 sessions are too few to decide"
