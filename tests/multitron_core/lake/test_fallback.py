"""The fallback list: worked out by hand, and the same whatever the order of the rows."""

from __future__ import annotations

from datetime import date
from math import log2

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.lake.fallback import fallback_list
from multitron_core.lake.lake import Lake

NIGHT = date(2026, 1, 5)
LISTS = {"a": [1, 2], "b": [1, 3], "c": [2, 1], "d": [4, 3]}


def write(lake: Lake, lists: dict[str, list[int]], pi: str = "0.50") -> int:
    rows = [(s, rank, item, -float(rank)) for s, items in lists.items() for rank, item in enumerate(items, 1)]
    frame = pl.DataFrame(rows, schema=["session_id", "rank", "item_id", "score"], orient="row")
    return lake.replace_partition(NIGHT, pi, [frame], model_version="7", k=2).delta_version


@pytest.fixture
def lake(tmp_path) -> Lake:
    lake = Lake(tmp_path)
    lake.create(pl.Int64)
    return lake


def test_gains_worked_out_by_hand(lake):
    write(lake, LISTS)
    second = 1 / log2(3)
    found = fallback_list(lake, NIGHT, "0.50", 4)
    assert found.schema == {"audience": pl.String, "rank": pl.Int16, "item_id": pl.Int64, "score": pl.Float32}
    assert found["rank"].to_list() == [1, 2, 3, 4]
    assert found["item_id"].to_list() == [1, 2, 3, 4]  # 3 at two second places against 4 at one first
    assert found["score"].to_list() == pytest.approx(
        [(2 + second) / 4, (1 + second) / 4, 2 * second / 4, 1 / 4], rel=1e-6
    )


def test_of_equal_gains_the_smaller_id_comes_first(lake):
    write(lake, {"a": [9, 5], "b": [5, 9], "c": [7, 6], "d": [6, 7]})
    assert fallback_list(lake, NIGHT, "0.50", 4)["item_id"].to_list() == [5, 6, 7, 9]


def test_each_preference_has_its_own_and_each_version_too(lake):
    first = write(lake, LISTS)
    write(lake, {"a": [8, 9]}, pi="1.00")
    write(lake, {"a": [5, 6]})
    assert fallback_list(lake, NIGHT, "1.00", 1)["item_id"].to_list() == [8]
    assert fallback_list(lake, NIGHT, "0.50", 1)["item_id"].to_list() == [5]
    assert fallback_list(lake, NIGHT, "0.50", 1, delta_version=first)["item_id"].to_list() == [1]


def test_it_is_a_list_that_the_table_takes(lake):
    write(lake, LISTS)
    lists = [fallback_list(lake, NIGHT, "0.50", 3)]
    lake.replace_partition(NIGHT, "0.50", lists, model_version="7", k=3, table="fallback_recommendations")
    lake.publish(NIGHT, "0.50", table="fallback_recommendations")
    assert lake.read_recommendations("0.50", table="fallback_recommendations")["item_id"].to_list() == [1, 2, 3]


def test_a_night_that_is_missing_or_shows_too_little_is_refused(lake):
    with pytest.raises(InputError, match="too few items"):
        fallback_list(lake, NIGHT, "0.50", 1)
    write(lake, LISTS)
    with pytest.raises(InputError, match="found: 4"):
        fallback_list(lake, NIGHT, "0.50", 5)
