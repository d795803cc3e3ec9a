"""Channels: settings are checked, readers find channels by name and get their length and exclusions."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

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
def lake(lake: Lake) -> Lake:
    """Two sessions with five items at pi 0.50 (1 to 5) and 1.00 (101 to 105), published."""
    for pi, first in (("0.50", 0), ("1.00", 100)):
        rows = [(session, rank, first + rank, 1.0 / rank) for session in ("a", "b") for rank in range(1, 6)]
        frame = pl.DataFrame(rows, schema=["session_id", "rank", "item_id", "score"], orient="row")
        lake.replace_partition(NIGHT, pi, [frame], model_version="7", k=5)
        lake.publish(NIGHT, pi)
    return lake


def test_publish_channels_lets_readers_use_a_name(lake: Lake) -> None:
    publish_channels(lake, [Channel("newsletter", "crm", pi="0.50", k=3, exclude_items=(2, 4))])
    shown = lake.read_recommendations(channel="newsletter")
    assert shown.select("session_id", "rank", "item_id").rows() == [
        (session, rank, item) for session in ("a", "b") for rank, item in ((1, 1), (2, 3), (3, 5))
    ]
    assert shown.schema == table_contracts(pl.Int64)["recommendations"].polars_schema()
    assert lake.read_recommendations(channel="newsletter", session_ids=["b"])["session_id"].to_list() == ["b"] * 3


def test_publish_channels_changes_pi_without_scoring(lake: Lake) -> None:
    publish_channels(lake, [Channel("newsletter", "crm", pi="0.50", k=1)])
    before = lake.version("recommendations")
    published = publish_channels(lake, [Channel("newsletter", "crm", pi="1.00", k=1)], grid=["0.50", "1.00"])
    assert published["on_grid"].to_list() == [True]
    assert lake.read_recommendations(channel="newsletter")["item_id"].to_list() == [101, 101]
    assert lake.version("recommendations") == before


def test_publish_channels_reports_pi_off_the_grid(lake: Lake) -> None:
    published = publish_channels(lake, [Channel("newsletter", "crm", pi="0.73")], grid=["0.50", "1.00"])
    assert published["on_grid"].to_list() == [False]
    with pytest.raises(InputError, match="not published"):
        lake.read_recommendations(channel="newsletter")


def test_publish_channels_chooses_pi_by_an_objective(lake: Lake) -> None:
    chosen = publish_channels(
        lake, [Channel("home", "web", objective="order_density", max_click_recall_loss=0.02)], front=FRONT
    )
    assert chosen.select("pi", "chosen_by").rows() == [("0.50", "order_density")]
    with pytest.raises(InputError, match="needs a front"):
        publish_channels(lake, [Channel("home", "web", objective="order_density")])


def test_publish_channels_removes_missing_channels(lake: Lake) -> None:
    publish_channels(lake, [Channel("newsletter", "crm", pi="0.50"), Channel("home", "web", pi="1.00")])
    publish_channels(lake, [Channel("home", "web", pi="1.00")])
    with pytest.raises(InputError, match="published are home"):
        lake.read_recommendations(channel="newsletter")
    lake.create(pl.Int64)  # raises if the table has lost its contract


def test_load_channels_from_toml(tmp_path: Path) -> None:
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
    ("settings", "message"),
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
def test_parse_channels_refuses_wrong_settings(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_channels({"newsletter": settings})


def test_load_channels_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_channels(tmp_path / "channels.toml")


def test_publish_channels_refuses_a_repeated_name(lake: Lake) -> None:
    with pytest.raises(InputError, match="same name"):
        publish_channels(lake, [Channel("home", "web", pi="0.50"), Channel("home", "crm", pi="1.00")])
