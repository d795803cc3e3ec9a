"""The fallback list: values computed by hand, ties, partitions and versions."""

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
    """Write lists of two items, from sessions to items; returns the Delta version."""
    rows = [(s, rank, item, -float(rank)) for s, items in lists.items() for rank, item in enumerate(items, 1)]
    frame = pl.DataFrame(rows, schema=["session_id", "rank", "item_id", "score"], orient="row")
    return lake.replace_partition(NIGHT, pi, [frame], model_version="7", k=2).delta_version


def test_fallback_list_equals_gains_by_hand(lake: Lake) -> None:
    write(lake, LISTS)
    second = 1 / log2(3)
    found = fallback_list(lake, NIGHT, "0.50", 4)
    assert found.schema == {"audience": pl.String, "rank": pl.Int16, "item_id": pl.Int64, "score": pl.Float32}
    assert found["rank"].to_list() == [1, 2, 3, 4]
    assert found["item_id"].to_list() == [1, 2, 3, 4]  # 3 has rank 2 twice, 4 has rank 1 once
    assert found["score"].to_list() == pytest.approx(
        [(2 + second) / 4, (1 + second) / 4, 2 * second / 4, 1 / 4], rel=1e-6
    )


def test_fallback_list_sorts_equal_gains_by_id(lake: Lake) -> None:
    write(lake, {"a": [9, 5], "b": [5, 9], "c": [7, 6], "d": [6, 7]})
    assert fallback_list(lake, NIGHT, "0.50", 4)["item_id"].to_list() == [5, 6, 7, 9]


def test_fallback_list_depends_on_preference_and_version(lake: Lake) -> None:
    first = write(lake, LISTS)
    write(lake, {"a": [8, 9]}, pi="1.00")
    write(lake, {"a": [5, 6]})
    assert fallback_list(lake, NIGHT, "1.00", 1)["item_id"].to_list() == [8]
    assert fallback_list(lake, NIGHT, "0.50", 1)["item_id"].to_list() == [5]
    assert fallback_list(lake, NIGHT, "0.50", 1, delta_version=first)["item_id"].to_list() == [1]


def test_fallback_list_meets_the_contract_of_its_table(lake: Lake) -> None:
    write(lake, LISTS)
    lists = [fallback_list(lake, NIGHT, "0.50", 3)]
    lake.replace_partition(NIGHT, "0.50", lists, model_version="7", k=3, table="fallback_recommendations")
    lake.publish(NIGHT, "0.50", table="fallback_recommendations")
    assert lake.read_recommendations("0.50", table="fallback_recommendations")["item_id"].to_list() == [1, 2, 3]


def test_fallback_list_refuses_too_few_items(lake: Lake) -> None:
    with pytest.raises(InputError, match="too few items"):
        fallback_list(lake, NIGHT, "0.50", 1)
    write(lake, LISTS)
    with pytest.raises(InputError, match="found: 4"):
        fallback_list(lake, NIGHT, "0.50", 5)
