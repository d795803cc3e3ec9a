"""Real runs of a night over a small shop: what is published, what is not, and why."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.lake.contracts import LIST_TABLES
from orchestration.assets.list_checks import CHECKS, COMPARISON
from orchestration.runtime.partitions import night_key
from tests.orchestration.conftest import DAYS, GRID, ITEMS, SESSIONS, K, ShopInTest

pytestmark = pytest.mark.slow
FIRST, SECOND, THIRD = DAYS


def evaluation(result: Any, table: str, name: str) -> Any:
    (found,) = [
        each
        for each in result.get_asset_check_evaluations()
        if each.asset_key.to_user_string() == table and each.check_name == name
    ]
    return found


def errors_of(result: Any) -> str:
    """The errors of the steps that failed."""
    return " ".join(
        event.step_failure_data.user_failure_data.description
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.user_failure_data
    )


def test_published_is_three_checked_tables_together(shop: ShopInTest) -> None:
    result = shop.score(FIRST, "0.50")
    assert result.success
    passed = {(each.asset_key.to_user_string(), each.check_name) for each in result.get_asset_check_evaluations()}
    assert passed == {(table, name) for table in LIST_TABLES for name in (*CHECKS, COMPARISON)}
    published = shop.lake.publications().sort("table_name")
    assert published.select("table_name", "lists", "rows", "model_version").rows() == [
        ("fallback_recommendations", 1, K, "random"),
        ("item_recommendations", ITEMS, ITEMS * K, "random"),
        ("recommendations", SESSIONS[0], SESSIONS[0] * K, "random"),
    ]
    first = evaluation(result, "recommendations", COMPARISON)
    assert first.passed
    assert "first night" in first.metadata["compared with"].value


def test_published_reports_the_changes_of_a_similar_night(shop: ShopInTest) -> None:
    assert shop.score(FIRST, "0.50").success
    result = shop.score(THIRD, "0.50")
    assert result.success
    found = {key: value.value for key, value in evaluation(result, "recommendations", COMPARISON).metadata.items()}
    assert found["compared with"] == str(FIRST)
    assert (found["lists"], found["gained"], found["lost"], found["reason"]) == (SESSIONS[2], 0, 0, "none")
    assert {"changed", "overlap", "items", "items before", "top share", "top share before"} <= set(found)
    (materialization,) = result.asset_materializations_for_node("published")
    changes = materialization.metadata["recommendations: changes to the previous night"].value
    assert f"| lists | {SESSIONS[0]} | {SESSIONS[2]} |" in changes


def test_published_refuses_a_night_of_half_the_sessions(shop: ShopInTest) -> None:
    assert shop.score(FIRST, "0.50").success
    before = shop.lake.read_recommendations("0.50")
    result = shop.score(SECOND, "0.50")
    assert not result.success
    check = evaluation(result, "recommendations", COMPARISON)
    assert not check.passed
    assert "25 lists against 60" in check.description
    assert check.metadata["reason"].value == check.description
    assert shop.lake.partitions().filter(run_date=SECOND).height == 1, "the partition is written ..."
    assert shop.lake.publications()["run_date"].unique().to_list() == [FIRST], "... and not published"
    assert shop.lake.read_recommendations("0.50").equals(before)


def test_published_refuses_a_failed_check_when_run_alone(shop: ShopInTest) -> None:
    assert shop.score(FIRST, "0.50").success
    assert not shop.score(SECOND, "0.50").success
    key = night_key(SECOND, "0.50")
    alone = shop.run("scoring", key, op_selection=["published"])
    assert not alone.success
    assert "25 lists against 60" in errors_of(alone)
    shop.change(quality={"min_lists": 0.3})
    assert shop.run("scoring", key).success, "the thresholds allow it now"
    assert shop.lake.read_recommendations("0.50")["run_date"].unique().to_list() == [SECOND]


def test_published_refuses_an_unchecked_partition(shop: ShopInTest) -> None:
    result = shop.run("scoring", night_key(FIRST, "0.50"), op_selection=["published"])
    assert not result.success
    assert "a check has not run" in errors_of(result)


def test_published_pins_the_checked_version(shop: ShopInTest) -> None:
    assert shop.score(FIRST, "0.50").success
    checked = shop.lake.publications("recommendations")["delta_version"].item()
    rows = shop.lake.read_recommendations("0.50")
    other = rows.select("session_id", "rank", "item_id", pl.col("score") + 1000.0)
    shop.lake.replace_partition(FIRST, "0.50", [other], model_version="unchecked", k=K)
    assert shop.run("scoring", night_key(FIRST, "0.50"), op_selection=["published"]).success
    row = shop.lake.publications("recommendations").row(0, named=True)
    assert (row["delta_version"], row["model_version"]) == (checked, "random")
    assert shop.lake.read_recommendations("0.50").equals(rows)


def test_night_publishes_channels_only_when_it_is_complete(shop: ShopInTest) -> None:
    assert shop.score(FIRST, "0.50").success
    result = shop.run("night_completion", str(FIRST))
    assert not result.success
    assert "recommendations 0.00" in evaluation(result, "night", "every_pi_is_there").metadata["missing"].value
    with pytest.raises(InputError, match="no such channel"):
        shop.lake.read_recommendations(channel="newsletter")
    for pi in GRID:
        assert shop.score(FIRST, pi).success
    assert shop.run("night_completion", str(FIRST)).success
    rows = shop.lake.read_recommendations(channel="newsletter")
    assert rows["pi"].unique().to_list() == ["0.50"]
    assert rows.height == 3 * SESSIONS[0]
