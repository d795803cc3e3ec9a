"""Real runs of the assets `channels` and `housekeeping` over a small shop."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from multitron_core.lake.contracts import LIST_TABLES
from tests.orchestration.conftest import DAYS, GRID, ITEMS, SESSIONS, K, ShopInTest

pytestmark = pytest.mark.slow
FIRST, _, THIRD = DAYS


def complete_night(shop: ShopInTest) -> None:
    for pi in GRID:
        assert shop.score(FIRST, pi).success
    assert shop.run("night_completion", str(FIRST)).success


def errors_of(result: Any) -> str:
    """The errors of the steps that failed."""
    return " ".join(
        event.step_failure_data.user_failure_data.description
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.user_failure_data
    )


def test_channels_change_their_preference_without_scoring(shop: ShopInTest) -> None:
    complete_night(shop)
    versions = {table: shop.lake.version(table) for table in LIST_TABLES}
    shop.change(
        channels={
            "newsletter": {"owner": "crm@example.com", "pi": "0.00", "k": 2, "exclude_items": [1001]},
            "product_page": {"owner": "shop@example.com", "table": "item_recommendations", "pi": "0.50", "k": 4},
            "home_page": {"owner": "shop@example.com", "table": "fallback_recommendations", "pi": "0.00", "k": 5},
            "chosen": {
                "owner": "shop@example.com",
                "objective": "order_density",
                "max_click_recall_loss": 0.02,
                "k": 1,
            },
        }
    )
    assert shop.run("channel_publication").success
    rows = shop.lake.read_recommendations(channel="newsletter")
    assert rows["pi"].unique().to_list() == ["0.00"]
    assert rows["rank"].max() == 2
    assert 1001 not in rows["item_id"]
    assert shop.lake.read_recommendations(channel="product_page").height == 4 * ITEMS
    assert shop.lake.read_recommendations(channel="home_page").height == 5
    assert shop.lake.read_recommendations(channel="chosen")["pi"].unique().to_list() == ["0.50"]
    (recorded,) = shop.home.glob("models/*/operating_points.json")
    points = json.loads(recorded.read_text())
    assert list(points) == ["chosen"], "the other channels have a fixed pi"
    assert (points["chosen"]["pi_key"], points["chosen"]["model_version"]) == ("0.50", "random")
    assert points["chosen"]["click_recall_loss"] == pytest.approx(0.01)
    assert versions == {table: shop.lake.version(table) for table in LIST_TABLES}


def test_channels_wait_for_an_unpublished_preference(shop: ShopInTest) -> None:
    complete_night(shop)
    shop.change(channels={"newsletter": {"owner": "crm@example.com", "pi": "0.37", "k": 3}})
    early = shop.run("channel_publication")
    assert not early.success
    assert "newsletter" in errors_of(early)
    assert "0.37" in errors_of(early)
    assert shop.lake.read_recommendations(channel="newsletter")["pi"].unique().to_list() == ["0.50"]
    assert shop.score(FIRST, "0.37").success
    assert shop.run("channel_publication").success
    assert shop.lake.read_recommendations(channel="newsletter")["pi"].unique().to_list() == ["0.37"]


def test_housekeeping_deletes_old_nights_and_reports_sizes(shop: ShopInTest) -> None:
    assert shop.score(FIRST, "0.50").success
    assert shop.score(THIRD, "0.50").success
    for path in (shop.home / "sessions" / "scoring").iterdir():
        os.utime(path, (0, 0), follow_symlinks=False)
    # Both nights are older. The latest published one stays; the first is no longer open.
    shop.change(tables={"keep_days": 1}, night={"catch_up_days": 1})
    result = shop.run("housekeeping_of_tables")
    assert result.success
    for table in LIST_TABLES:
        assert shop.lake.partitions(table)["run_date"].to_list() == [THIRD]
    (materialization,) = result.asset_materializations_for_node("housekeeping")
    found = {key: value.value for key, value in materialization.metadata.items()}
    rows = K * (SESSIONS[2] + ITEMS + 1) + len(LIST_TABLES)
    assert (found["deleted nights"], found["nights"], found["rows"]) == (1, 1, rows)
    assert found["bytes"] > 0
    assert (found["deleted local nights"], found["deleted local bytes"] > 0) == (1, True)
    kept = {path.name.strip(".").split(".")[0] for path in (shop.home / "sessions" / "scoring").iterdir()}
    assert kept == {str(THIRD)}
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("publications_readable", True)
    assert shop.lake.read_recommendations("0.50")["run_date"].unique().to_list() == [THIRD]
