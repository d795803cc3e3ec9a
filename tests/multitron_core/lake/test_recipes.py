"""Runs the recipes of docs/tables.md as they are written there."""

from __future__ import annotations

import re
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from multitron_core.lake.channels import Channel, publish_channels
from multitron_core.lake.lake import Lake

DOCUMENT = Path(__file__).parents[3] / "docs" / "tables.md"
TITLED_BLOCK = re.compile(r"^### (?P<title>[^\n]+)\n(?P<text>.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
RECIPES = {
    section["title"]: block
    for section in TITLED_BLOCK.finditer(DOCUMENT.read_text())
    for block in re.findall(r"^```python\n(.*?)^```", section["text"], re.MULTILINE | re.DOTALL)
}
NEEDS = {"pandas": ("pandas", "pyarrow")}


def lists(first_item: int) -> pl.DataFrame:
    """Lists of two items for four sessions."""
    rows = [(f"s{session:06d}", rank, first_item + rank, 1.0 / rank) for session in range(4) for rank in (1, 2)]
    return pl.DataFrame(rows, schema=["session_id", "rank", "item_id", "score"], orient="row")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """`home/lake` with two published nights, one that is not published yet, and two channels."""
    monkeypatch.chdir(tmp_path)
    lake = Lake("home/lake")
    lake.create(pl.Int64)
    for night, first_item in ((date(2026, 1, 30), 0), (date(2026, 1, 31), 100)):
        for pi in ("0.00", "0.50"):
            lake.replace_partition(night, pi, [lists(first_item)], model_version="7", k=2)
            lake.publish(night, pi)
    lake.replace_partition(date(2026, 2, 1), "0.50", [lists(200)], model_version="7", k=2)
    publish_channels(
        lake,
        [
            Channel("newsletter", "crm@example.com", pi="0.50", k=1, exclude_items=(101,)),
            Channel("home_page", "web@example.com", pi="0.00"),
        ],
    )
    return lake


def as_rows(table: Any) -> list[dict[str, Any]]:
    """The rows of a polars frame, a pandas frame or a DuckDB relation."""
    if isinstance(table, pl.DataFrame):
        return table.to_dicts()
    if isinstance(table, duckdb.DuckDBPyRelation):
        return [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]
    return table.to_dict(orient="records")


def test_recipes_exist_for_every_tool() -> None:
    assert set(RECIPES) == {
        "With this project",
        "polars",
        "A channel, in polars",
        "A channel, in DuckDB",
        "DuckDB",
        "Plain SQL on Delta, without a database",
        "pandas",
    }


@pytest.mark.parametrize("title", RECIPES)
def test_recipes_return_the_published_rows(title: str, home: Lake) -> None:
    missing = [name for name in NEEDS.get(title, ()) if find_spec(name) is None]
    if missing:
        pytest.skip(f"the recipe for {title} needs {', '.join(missing)}")
    names: dict[str, object] = {}
    exec(RECIPES[title], names)
    expected = lists(100).with_columns(
        pi=pl.lit("0.50"),
        pi_click=0.5,
        pi_order=0.5,
        model_version=pl.lit("7"),
        run_date=date(2026, 1, 31),
    )
    given = {"rows": expected, "some": expected.filter(session_id="s000001")}
    for name in given.keys() & names.keys():
        found = as_rows(names[name])
        columns = expected.columns
        assert [[row[column] for column in columns] for row in found] == [
            [row[column] if column != "score" else pytest.approx(row[column]) for column in columns]
            for row in given[name].iter_rows(named=True)
        ]
    if "shown" in names:  # the lists of a channel
        columns = ["session_id", "rank", "item_id", "run_date"]
        expected_rows = home.read_recommendations(channel="newsletter").select(columns).rows()
        assert expected_rows[0] == ("s000000", 1, 102, date(2026, 1, 31))
        assert [tuple(row[column] for column in columns) for row in as_rows(names["shown"])] == expected_rows
    assert "rows" in names or "shown" in names


def test_recipes_need_only_reader_1_and_writer_2(home: Lake) -> None:
    for table in ("recommendations", "item_recommendations", "fallback_recommendations", "published"):
        protocol = home.open(table).protocol()
        assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
