"""Real runs of the scoring assets over a small shop: the contents of the tables, and the metadata of the assets."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from orchestration.assets.list_metadata import FALLBACK_SOURCE
from orchestration.shop.home import load_shop
from tests.orchestration.conftest import DAYS, GRID, ITEMS, SESSIONS, K, ShopInTest

pytestmark = pytest.mark.slow
FIRST = DAYS[0]


def metadata_of(result: Any, asset: str) -> dict[str, Any]:
    (materialization,) = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in materialization.metadata.items()}


def clicks_of(shop: ShopInTest) -> pl.DataFrame:
    """`session_id`, `item_id`: every click of the night's sessions."""
    loaded = load_shop(shop.home)
    vocabulary = Vocabulary.load(loaded.models / "random" / "vocabulary.parquet")
    clicks = EncodedSessions.load(loaded.scoring_sessions(FIRST)).to_frame().explode("items")
    return clicks.select("session_id", item_id=vocabulary.decode(clicks["items"]))


def test_scoring_sessions_counts_items_unknown_to_the_model(shop: ShopInTest) -> None:
    with (shop.home / "raw" / f"events-{FIRST}.csv").open("a") as file:
        for second, item in enumerate((9001, 9002, 9001)):
            file.write(f"s000,{item},{FIRST}T10:30:0{second},click\n")
    assert shop.run("ingestion", str(FIRST)).success
    result = shop.run("session_preparation", str(FIRST))
    assert result.success
    metadata = metadata_of(result, "scoring_sessions")
    assert (metadata["new items"], metadata["clicks on new items"]) == (2, 3)
    assert metadata["dagster/row_count"] == SESSIONS[0]
    assert metadata_of(result, "assortment") == {"items": "every item"}


def test_recommendations_describe_what_they_wrote(shop: ShopInTest) -> None:
    result = shop.score(FIRST, "0.50")
    assert result.success
    sessions, items, fallback = (
        metadata_of(result, table) for table in ("recommendations", "item_recommendations", "fallback_recommendations")
    )
    assert (sessions["lists"], sessions["dagster/row_count"]) == (SESSIONS[0], SESSIONS[0] * K)
    assert sessions["model version"] == items["model version"] == fallback["model version"] == "random"
    assert sessions["triton version"] == items["triton version"] == 1
    assert "triton version" not in fallback
    assert fallback[FALLBACK_SOURCE] == sessions["delta version"]
    assert sessions["assortment"] == "every item"
    assert items["lists"] == ITEMS
    assert "| s000 |" in sessions["sample"]


def test_recommendations_obey_the_assortment_in_every_table(shop: ShopInTest) -> None:
    allowed = list(range(1000, 1030, 2))
    pl.DataFrame({"item_id": [*allowed, 77_777]}).write_csv(shop.home / "tonight.csv")
    shop.change(scoring={"pi": GRID, "k": K, "assortment": "tonight.csv", "exclude_clicked": True})
    pi = GRID[0]
    result = shop.score(FIRST, pi)
    assert result.success
    assert metadata_of(result, "recommendations")["assortment"] == f"{len(allowed) + 1} items"
    for table in ("recommendations", "item_recommendations", "fallback_recommendations"):
        rows = shop.lake.read_recommendations(pi, FIRST, table=table, unpublished=True)
        assert set(rows["item_id"]) <= set(allowed)
        assert len(rows) % K == 0
    lists, clicks = shop.lake.read_recommendations(pi, FIRST), clicks_of(shop)
    assert len(lists) == K * clicks["session_id"].n_unique()
    assert lists.join(clicks, on=["session_id", "item_id"], how="semi").is_empty()
