"""Real runs of the jobs over a small shop: what is published, what is not and why, channels, housekeeping."""

from __future__ import annotations

import json
import math
import os
import uuid
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster import AssetCheckEvaluation

from multitron_core.errors import InputError
from multitron_core.lake.contracts import LIST_TABLES
from orchestration.assets.list_checks import CHECKS, COMPARISON, DELTA_VERSION, checked_version
from orchestration.runtime.partitions import PARTITION_TAG, night_key
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


def why(result: Any) -> str:
    """The errors of the steps that failed."""
    return " ".join(
        event.step_failure_data.user_failure_data.description
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.user_failure_data
    )


def test_a_night_is_three_tables_checked_and_published_together(shop: ShopInTest) -> None:
    result = shop.score(FIRST, "0.50")
    assert result.success
    passed = {(each.asset_key.to_user_string(), each.check_name) for each in result.get_asset_check_evaluations()}
    assert passed == {(table, name) for table in LIST_TABLES for name in (*CHECKS, COMPARISON)}
    released = shop.lake.publications().sort("table_name")
    assert released.select("table_name", "lists", "rows", "model_version").rows() == [
        ("fallback_recommendations", 1, K, "random"),
        ("item_recommendations", ITEMS, ITEMS * K, "random"),
        ("recommendations", SESSIONS[0], SESSIONS[0] * K, "random"),
    ]
    first = evaluation(result, "recommendations", COMPARISON)
    assert first.passed
    assert "first night" in first.metadata["compared with"].value


def test_items_that_the_live_model_does_not_know_are_counted_and_reported(shop: ShopInTest) -> None:
    with (shop.home / "raw" / f"events-{FIRST}.csv").open("a") as file:
        for second, item in enumerate((9001, 9002, 9001)):
            file.write(f"s000,{item},{FIRST}T10:30:0{second},click\n")
    assert shop.run("ingestion", str(FIRST)).success
    result = shop.run("session_preparation", str(FIRST))
    assert result.success
    (told,) = result.asset_materializations_for_node("scoring_sessions")
    assert (told.metadata["new items"].value, told.metadata["clicks on new items"].value) == (2, 3)
    assert told.metadata["dagster/row_count"].value == SESSIONS[0]


def test_items_never_stand_beside_themselves_and_every_item_has_a_list(shop: ShopInTest) -> None:
    assert shop.score(FIRST, "0.50").success
    rows = shop.lake.read_recommendations("0.50", table="item_recommendations")
    assert rows["for_item_id"].unique().sort().to_list() == list(range(1000, 1000 + ITEMS))
    assert rows.filter(pl.col("for_item_id") == pl.col("item_id")).is_empty()


def test_the_fallback_is_what_the_night_shows_most_and_highest(shop: ShopInTest) -> None:
    assert shop.score(FIRST, "0.50").success
    gains: dict[int, float] = {}
    for row in shop.lake.read_recommendations("0.50").iter_rows(named=True):
        gains[row["item_id"]] = gains.get(row["item_id"], 0.0) + 1 / math.log2(row["rank"] + 1) / SESSIONS[0]
    expected = sorted(gains.items(), key=lambda pair: (-round(pair[1], 6), pair[0]))[:K]
    fallback = shop.lake.read_recommendations("0.50", table="fallback_recommendations").sort("rank")
    assert fallback["item_id"].to_list() == [item for item, _ in expected]
    assert fallback["score"].to_list() == pytest.approx([gain for _, gain in expected], rel=1e-5)


def test_what_changed_is_told_and_a_like_night_is_published(shop: ShopInTest) -> None:
    assert shop.score(FIRST, "0.50").success
    result = shop.score(THIRD, "0.50")
    assert result.success
    told = {key: value.value for key, value in evaluation(result, "recommendations", COMPARISON).metadata.items()}
    assert told["compared with"] == str(FIRST)
    assert (told["lists"], told["gained"], told["lost"], told["reason"]) == (SESSIONS[2], 0, 0, "none")
    assert {"changed", "overlap", "items", "items before", "top share", "top share before"} <= set(told)


def test_a_night_without_half_of_its_sessions_is_not_published_and_the_check_says_why(shop: ShopInTest) -> None:
    assert shop.score(FIRST, "0.50").success
    before = shop.lake.read_recommendations("0.50")
    result = shop.score(SECOND, "0.50")
    assert not result.success
    check = evaluation(result, "recommendations", COMPARISON)
    assert not check.passed
    assert "25 lists against 60" in check.description
    assert check.metadata["reason"].value == check.description
    assert shop.lake.partitions().filter(run_date=SECOND).height == 1, "it was written ..."
    assert shop.lake.publications()["run_date"].unique().to_list() == [FIRST], "... and is published nowhere"
    assert shop.lake.read_recommendations("0.50").equals(before)


def test_what_failed_its_check_is_not_published_by_hand_either_until_the_thresholds_say_so(shop: ShopInTest) -> None:
    assert shop.score(FIRST, "0.50").success
    assert not shop.score(SECOND, "0.50").success
    key = night_key(SECOND, "0.50")
    by_hand = shop.run("scoring", key, op_selection=["published"])
    assert not by_hand.success
    assert "25 lists against 60" in why(by_hand)
    shop.change(quality={"min_lists": 0.3})
    assert shop.run("scoring", key).success
    assert shop.lake.read_recommendations("0.50")["run_date"].unique().to_list() == [SECOND]


def test_what_was_never_checked_is_not_published(shop: ShopInTest) -> None:
    result = shop.run("scoring", night_key(FIRST, "0.50"), op_selection=["published"])
    assert not result.success
    assert "has not been checked" in why(result)


def test_the_version_that_was_checked_is_published_whatever_came_after(shop: ShopInTest) -> None:
    assert shop.score(FIRST, "0.50").success
    checked = shop.lake.publications("recommendations")["delta_version"].item()
    rows = shop.lake.read_recommendations("0.50")
    other = rows.select("session_id", "rank", "item_id", pl.col("score") + 1000.0)
    shop.lake.replace_partition(FIRST, "0.50", [other], model_version="unchecked", k=K)
    assert shop.run("scoring", night_key(FIRST, "0.50"), op_selection=["published"]).success
    row = shop.lake.publications("recommendations").row(0, named=True)
    assert (row["delta_version"], row["model_version"]) == (checked, "random")
    assert shop.lake.read_recommendations("0.50").equals(rows)


def look(shop: ShopInTest, name: str, version: int, *, passed: bool = True) -> None:
    """A check of another run comes in: it has looked at this version."""
    partition = night_key(FIRST, "0.50")
    metadata = {DELTA_VERSION: dg.IntMetadataValue(version)}
    found = AssetCheckEvaluation(dg.AssetKey("recommendations"), name, passed, metadata, partition=partition)
    event = dg.DagsterEvent(dg.DagsterEventType.ASSET_CHECK_EVALUATION.value, "another", event_specific_data=found)
    run = dg.DagsterRun("scoring", run_id=str(uuid.uuid4()), tags={PARTITION_TAG: str(partition)})
    shop.instance.add_run(run)
    shop.instance.report_dagster_event(event, run_id=run.run_id)


def test_the_checks_of_two_runs_that_come_in_mixed_are_told_apart_by_their_version(shop: ShopInTest) -> None:
    assert shop.score(FIRST, "0.50").success
    partition = night_key(FIRST, "0.50")
    version = checked_version(shop.instance, "recommendations", partition)
    for name in ("ranks_dense", COMPARISON):
        look(shop, name, version - 1, passed=False)  # of a run whose partition this one has replaced
    assert checked_version(shop.instance, "recommendations", partition) == version
    look(shop, "rows_present", version + 1)  # of a run that has replaced this one's and goes on with its checks
    with pytest.raises(InputError, match=r"different versions.*'rows_present': .*run the checks of this"):
        checked_version(shop.instance, "recommendations", partition)
    for name in (*CHECKS, COMPARISON):
        look(shop, name, version + 1)
    assert checked_version(shop.instance, "recommendations", partition) == version + 1
    look(shop, COMPARISON, version + 1, passed=False)
    with pytest.raises(InputError, match="failed its check"):
        checked_version(shop.instance, "recommendations", partition)


def completed(shop: ShopInTest) -> Any:
    for pi in GRID:
        assert shop.score(FIRST, pi).success
    return shop.run("night_completion", str(FIRST))


def test_a_whole_night_brings_the_channels_and_one_without_a_table_does_not(shop: ShopInTest) -> None:
    assert shop.score(FIRST, "0.50").success
    result = shop.run("night_completion", str(FIRST))
    assert not result.success
    assert "recommendations 0.00" in evaluation(result, "night", "every_pi_is_there").metadata["missing"].value
    with pytest.raises(InputError, match="no such channel"):
        shop.lake.read_recommendations(channel="newsletter")
    assert completed(shop).success
    rows = shop.lake.read_recommendations(channel="newsletter")
    assert rows["pi"].unique().to_list() == ["0.50"]
    assert rows.height == 3 * SESSIONS[0]


def test_a_channel_moves_along_the_grid_without_scoring(shop: ShopInTest) -> None:
    assert completed(shop).success
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
    assert list(points) == ["chosen"], "the others name their pi"
    assert (points["chosen"]["pi_key"], points["chosen"]["model_version"]) == ("0.50", "random")
    assert points["chosen"]["click_recall_loss"] == pytest.approx(0.01)
    assert versions == {table: shop.lake.version(table) for table in LIST_TABLES}


def test_a_preference_off_the_grid_needs_one_partition_and_until_then_nothing_moves(shop: ShopInTest) -> None:
    assert completed(shop).success
    shop.change(channels={"newsletter": {"owner": "crm@example.com", "pi": "0.37", "k": 3}})
    early = shop.run("channel_publication")
    assert not early.success
    assert "newsletter" in why(early)
    assert "0.37" in why(early)
    assert shop.lake.read_recommendations(channel="newsletter")["pi"].unique().to_list() == ["0.50"]
    assert shop.score(FIRST, "0.37").success
    assert shop.run("channel_publication").success
    assert shop.lake.read_recommendations(channel="newsletter")["pi"].unique().to_list() == ["0.37"]


def test_housekeeping_deletes_old_nights_and_tells_the_sizes(shop: ShopInTest) -> None:
    assert shop.score(FIRST, "0.50").success
    assert shop.score(THIRD, "0.50").success
    for path in (shop.home / "sessions" / "scoring").iterdir():
        os.utime(path, (0, 0), follow_symlinks=False)
    # Both are older; the latest published one stays, and the first is not made up for any more.
    shop.change(tables={"keep_days": 1}, night={"catch_up_days": 1})
    result = shop.run("housekeeping_of_tables")
    assert result.success
    for table in LIST_TABLES:
        assert shop.lake.partitions(table)["run_date"].to_list() == [THIRD]
    (materialization,) = result.asset_materializations_for_node("housekeeping")
    told = {key: value.value for key, value in materialization.metadata.items()}
    rows = K * (SESSIONS[2] + ITEMS + 1) + len(LIST_TABLES)
    assert (told["deleted nights"], told["nights"], told["rows"]) == (1, 1, rows)
    assert told["bytes"] > 0
    assert (told["deleted local nights"], told["deleted local bytes"] > 0) == (1, True)
    there = {path.name.strip(".").split(".")[0] for path in (shop.home / "sessions" / "scoring").iterdir()}
    assert there == {str(THIRD)}
    assert evaluation(result, "housekeeping", "publications_readable").passed
    assert shop.lake.read_recommendations("0.50")["run_date"].unique().to_list() == [THIRD]
