from __future__ import annotations

import math

import polars as pl
import pytest

from multitron_core.errors import InputError, UnavailableError
from multitron_core.sessions.encoded import EncodedSessions
from orchestration.lifecycle.night import (
    STATISTICS_TABLE,
    prepare_night_assortment,
    prepare_night_sessions,
    write_fallback_list,
    write_item_lists,
    write_session_lists,
)
from orchestration.shop.home import Shop, load_shop
from orchestration.shop.night_sessions import prepared_sessions
from orchestration.shop.sources import events_fingerprint
from serving.in_process import InProcessServer
from serving.scorer import ScoringProgress
from tests.orchestration.conftest import DAYS, ITEMS, SESSIONS, K, ShopInTest

DAY, PI = DAYS[0], "0.50"
ALLOWED = list(range(1000, 1030, 2))


def assortment_of(shop: ShopInTest) -> Shop:
    """The shop with an assortment of every second item, one that the model does not know, and no clicked items."""
    pl.DataFrame({"item_id": [*ALLOWED, 77_777]}).write_csv(shop.home / "tonight.csv")
    shop.change(scoring={"pi": [PI], "k": K, "assortment": "tonight.csv", "exclude_clicked": True})
    return load_shop(shop.home)


def test_prepare_night_sessions_saves_and_counts_them(shop: ShopInTest) -> None:
    loaded = load_shop(shop.home)
    prepared = prepare_night_sessions(loaded, DAY)
    assert len(prepared.sessions) == prepared.statistics["sessions"] == SESSIONS[0]
    assert EncodedSessions.load(prepared.folder).to_frame().equals(prepared.sessions.to_frame())
    assert prepared_sessions(loaded, DAY, events_fingerprint(shop.lake, DAY)) == SESSIONS[0]
    rows = pl.scan_delta(shop.lake.open(STATISTICS_TABLE)).collect()
    assert rows["run_date"].unique().to_list() == [DAY]


def test_prepare_night_sessions_refuses_a_day_without_events(shop: ShopInTest) -> None:
    with pytest.raises(InputError, match=r"no events of this day.*2026-03-04"):
        prepare_night_sessions(load_shop(shop.home), DAYS[-1].replace(day=4))


def test_prepare_night_assortment_counts_unknown_items(shop: ShopInTest) -> None:
    assert prepare_night_assortment(load_shop(shop.home), DAY).items is None
    prepared = prepare_night_assortment(assortment_of(shop), DAY)
    assert prepared.items is not None
    assert prepared.items.to_list() == [*ALLOWED, 77_777]
    assert (prepared.unknown_items, prepared.excluded_items) == (1, ITEMS - len(ALLOWED))
    assert pl.read_parquet(prepared.path)["item_id"].equals(prepared.items)


def test_write_session_lists_requires_prepared_sessions(shop: ShopInTest) -> None:
    loaded = load_shop(shop.home)
    with InProcessServer(loaded.triton_repository) as server, pytest.raises(UnavailableError, match="scoring_sessions"):
        write_session_lists(loaded, server, DAY, PI)


def test_write_session_lists_obeys_assortment_and_clicks(shop: ShopInTest) -> None:
    loaded, seen = assortment_of(shop), list[ScoringProgress]()
    sessions = prepare_night_sessions(loaded, DAY).sessions
    prepare_night_assortment(loaded, DAY)
    with InProcessServer(loaded.triton_repository) as server:
        written = write_session_lists(loaded, server, DAY, PI, progress=seen.append)
    rows = shop.lake.read_recommendations(PI, DAY, unpublished=True)
    assert (written.commit.sessions, written.commit.rows) == (SESSIONS[0], SESSIONS[0] * K)
    assert (written.model_version, written.triton_version, written.source_version) == ("random", 1, None)
    assert written.assortment_items == len(ALLOWED) + 1
    assert written.sample.equals(rows.head(3 * K))
    assert seen[-1].sessions == SESSIONS[0]
    assert set(rows["item_id"]) <= set(ALLOWED)
    clicks = sessions.to_frame().explode("items").select("session_id", item_id=pl.col("items").cast(pl.Int64) + 999)
    assert rows.join(clicks, on=["session_id", "item_id"], how="semi").is_empty()


def test_write_item_lists_has_one_list_per_item(shop: ShopInTest) -> None:
    loaded = load_shop(shop.home)
    with InProcessServer(loaded.triton_repository) as server:
        written = write_item_lists(loaded, server, DAY, PI)
    rows = shop.lake.read_recommendations(PI, DAY, table="item_recommendations", unpublished=True)
    assert (written.commit.table, written.assortment_items) == ("item_recommendations", None)
    assert rows["for_item_id"].unique().sort().to_list() == list(range(1000, 1000 + ITEMS))
    assert rows.filter(pl.col("for_item_id") == pl.col("item_id")).is_empty()


def test_write_fallback_list_has_the_largest_mean_gain(shop: ShopInTest) -> None:
    loaded = load_shop(shop.home)
    prepare_night_sessions(loaded, DAY)
    with InProcessServer(loaded.triton_repository) as server:
        source = write_session_lists(loaded, server, DAY, PI).commit.delta_version
    written = write_fallback_list(loaded, DAY, PI)
    assert (written.model_version, written.triton_version, written.source_version) == ("random", None, source)
    gains: dict[int, float] = {}
    for row in shop.lake.read_recommendations(PI, DAY, unpublished=True).iter_rows(named=True):
        gains[row["item_id"]] = gains.get(row["item_id"], 0.0) + 1 / math.log2(row["rank"] + 1) / SESSIONS[0]
    expected = sorted(gains.items(), key=lambda pair: (-round(pair[1], 6), pair[0]))[:K]
    table = "fallback_recommendations"
    fallback = shop.lake.read_recommendations(PI, DAY, table=table, unpublished=True).sort("rank")
    assert fallback["item_id"].to_list() == [item for item, _ in expected]
    assert fallback["score"].to_list() == pytest.approx([gain for _, gain in expected], rel=1e-5)
