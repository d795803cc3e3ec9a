"""Channels: checked when they are loaded, found by readers by name, shown with their own length and exclusions."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.lake.channels import Channel, load_channels, parse_channels, publish_channels
from multitron_core.lake.contracts import table_contracts
from multitron_core.lake.lake import Lake

NIGHT = date(2026, 1, 31)
FRONT = pl.DataFrame(
    {
        "pi_order": [0.0, 0.5, 0.9],
        "click_recall_20": [0.50, 0.49, 0.30],
        "order_density": [0.02, 0.03, 0.09],
        "dominated": [False, False, False],
    }
)


@pytest.fixture
def lake(tmp_path) -> Lake:
    lake = Lake(tmp_path)
    lake.create(pl.Int64)
    for pi, first in (("0.50", 0), ("1.00", 100)):
        rows = [(session, rank, first + rank, 1.0 / rank) for session in ("a", "b") for rank in range(1, 6)]
        frame = pl.DataFrame(rows, schema=["session_id", "rank", "item_id", "score"], orient="row")
        lake.replace_partition(NIGHT, pi, [frame], model_version="7", k=5)
        lake.publish(NIGHT, pi)
    return lake


def test_a_channel_is_read_by_its_name(lake):
    publish_channels(lake, [Channel("newsletter", "crm", pi="0.50", k=3, exclude_items=(2, 4))])
    shown = lake.read_recommendations(channel="newsletter")
    assert shown.select("session_id", "rank", "item_id").rows() == [
        (session, rank, item) for session in ("a", "b") for rank, item in ((1, 1), (2, 3), (3, 5))
    ]
    assert shown.schema == table_contracts(pl.Int64)["recommendations"].polars_schema()
    assert lake.read_recommendations(channel="newsletter", session_ids=["b"])["session_id"].to_list() == ["b"] * 3


def test_a_channel_moves_to_another_preference_without_scoring(lake):
    publish_channels(lake, [Channel("newsletter", "crm", pi="0.50", k=1)])
    before = lake.version("recommendations")
    published = publish_channels(lake, [Channel("newsletter", "crm", pi="1.00", k=1)], grid=["0.50", "1.00"])
    assert published["on_grid"].to_list() == [True]
    assert lake.read_recommendations(channel="newsletter")["item_id"].to_list() == [101, 101]
    assert lake.version("recommendations") == before


def test_a_preference_off_the_grid_is_told(lake):
    published = publish_channels(lake, [Channel("newsletter", "crm", pi="0.73")], grid=["0.50", "1.00"])
    assert published["on_grid"].to_list() == [False]
    with pytest.raises(InputError, match="not published"):
        lake.read_recommendations(channel="newsletter")


def test_an_objective_chooses_the_preference_on_the_front(lake):
    chosen = publish_channels(
        lake, [Channel("home", "web", objective="order_density", max_click_recall_loss=0.02)], front=FRONT
    )
    assert chosen.select("pi", "chosen_by").rows() == [("0.50", "order_density")]
    with pytest.raises(InputError, match="needs a front"):
        publish_channels(lake, [Channel("home", "web", objective="order_density")])


def test_a_channel_that_is_left_out_is_gone_and_the_table_keeps_its_contract(lake):
    publish_channels(lake, [Channel("newsletter", "crm", pi="0.50"), Channel("home", "web", pi="1.00")])
    publish_channels(lake, [Channel("home", "web", pi="1.00")])
    with pytest.raises(InputError, match="published are home"):
        lake.read_recommendations(channel="newsletter")
    lake.create(pl.Int64)  # refuses a table that has lost its contract


def test_either_a_preference_or_a_channel(lake):
    with pytest.raises(InputError, match="either"):
        lake.read_recommendations()
    with pytest.raises(InputError, match="either"):
        lake.read_recommendations("0.50", channel="newsletter")


def test_channels_are_loaded_from_toml(tmp_path):
    path = tmp_path / "channels.toml"
    path.write_text(
        """
        [newsletter]
        owner = "crm@example.com"
        pi = "0.50"
        k = 10
        exclude_items = [4711]
        [product_page]
        owner = "shop@example.com"
        table = "item_recommendations"
        objective = "order_density"
        """
    )
    assert load_channels(path) == (
        Channel("newsletter", "crm@example.com", pi="0.50", k=10, exclude_items=(4711,)),
        Channel("product_page", "shop@example.com", table="item_recommendations", objective="order_density"),
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pi": "0.50"}, "no owner"),
        ({"owner": "", "pi": "0.50"}, "owner"),
        ({"owner": "crm"}, "either pi or objective"),
        ({"owner": "crm", "pi": "0.50", "objective": "order_density"}, "either pi or objective"),
        ({"owner": "crm", "pi": "0.5"}, "not a pi key"),
        ({"owner": "crm", "pi": "0.50", "k": 0}, "1 or more"),
        ({"owner": "crm", "pi": "0.50", "table": "events"}, "item_recommendations"),
        ({"owner": "crm", "pi": "0.50", "colour": "red"}, "colour"),
        ({"owner": "crm", "objective": "order_density", "max_click_recall_loss": 2.0}, "between 0 and 1"),
        ("0.50", "not a channel"),
    ],
)
def test_wrong_settings_are_refused_when_they_are_loaded(settings, said):
    with pytest.raises(InputError, match=said):
        parse_channels({"newsletter": settings})


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_channels(tmp_path / "channels.toml")
