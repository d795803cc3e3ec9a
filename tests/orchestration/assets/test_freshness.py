from __future__ import annotations

import datetime as dt
from pathlib import Path

import dagster as dg

from orchestration.assets.freshness import NIGHTLY, WEEKLY
from orchestration.code_location import build_definitions
from orchestration.shop.home import Shop
from orchestration.shop.settings import Settings, demo_settings


def policies(home: Path, **sections: object) -> dict[str, object]:
    settings = Settings.model_validate({**demo_settings().model_dump(), **sections})
    graph = build_definitions(Shop(home=home, settings=settings)).resolve_asset_graph()
    return {key.to_user_string(): graph.get(key).freshness_policy for key in graph.get_all_asset_keys()}


def test_with_freshness_uses_the_deadline_of_the_night(tmp_path: Path) -> None:
    growing = {"first_day": "2026-01-01"}
    found = policies(tmp_path, calendar=growing, night={"deadline_hours": 6.5})
    assert {name for name, policy in found.items() if policy} == {*NIGHTLY, *WEEKLY}
    policy = found["published"]
    assert policy == dg.FreshnessPolicy.cron(
        deadline_cron="30 6 * * *", lower_bound_delta=dt.timedelta(hours=6.5), timezone="UTC"
    )


def test_with_freshness_adds_nothing_to_an_ended_calendar(tmp_path: Path) -> None:
    assert not any(policies(tmp_path).values())
