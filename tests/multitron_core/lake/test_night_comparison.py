"""Comparison with the previous night: values computed by hand, and nights that must not be published."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.lake.lake import Lake
from multitron_core.lake.night_comparison import Thresholds, compare_nights, violations

MONDAY, TUESDAY, WEDNESDAY = date(2026, 1, 5), date(2026, 1, 6), date(2026, 1, 7)


def write(lake: Lake, night: date, lists: dict[str, list[int]], *, publish: bool = True) -> None:
    """Write the lists of a night, from sessions to items, and publish them."""
    k = len(next(iter(lists.values())))
    rows = [(s, rank, item, -float(rank)) for s, items in sorted(lists.items()) for rank, item in enumerate(items, 1)]
    frame = pl.DataFrame(rows, schema=["session_id", "rank", "item_id", "score"], orient="row")
    lake.replace_partition(night, "0.50", [frame], model_version="7", k=k)
    if publish:
        lake.publish(night, "0.50")


def test_compare_nights_equals_values_by_hand(lake: Lake) -> None:
    write(lake, MONDAY, {"a": [1, 2, 3, 4], "b": [1, 2, 3, 4], "c": [1, 2, 3, 4], "gone": [5, 6, 7, 8]})
    write(
        lake,
        TUESDAY,
        {"a": [1, 2, 3, 4], "b": [2, 1, 3, 4], "c": [1, 9, 10, 11], "new": [1, 2, 3, 4], "newer": [1, 2, 3, 4]},
        publish=False,
    )
    found = compare_nights(lake, TUESDAY, "0.50")
    assert found.before == MONDAY
    assert (found.lists, found.lists_before, found.gained, found.lost, found.compared) == (5, 4, 2, 1, 3)
    assert found.changed == pytest.approx(2 / 3)  # b in order, c in items
    assert found.overlap == pytest.approx((1 + 1 + 1 / 4) / 3)
    assert (found.items, found.items_before) == (7, 8)
    assert found.top_share == pytest.approx(5 / 20)  # item 1 is in every list
    assert found.top_share_before == pytest.approx(3 / 16)


def test_compare_nights_of_the_first_night(lake: Lake) -> None:
    write(lake, MONDAY, {"a": [1, 2]}, publish=False)
    found = compare_nights(lake, MONDAY, "0.50")
    assert (found.before, found.gained, found.overlap, found.lists, found.items) == (None, None, None, 1, 2)
    assert violations(found) == []


def test_compare_nights_uses_the_last_published_night(lake: Lake) -> None:
    write(lake, MONDAY, {"a": [1, 2]})
    write(lake, MONDAY, {"a": [8, 9]}, publish=False)
    write(lake, TUESDAY, {"a": [3, 4]}, publish=False)
    write(lake, WEDNESDAY, {"a": [2, 1]}, publish=False)
    found = compare_nights(lake, WEDNESDAY, "0.50")
    assert (found.before, found.overlap, found.changed) == (MONDAY, 1.0, 1.0)


def test_compare_nights_samples_the_lists(lake: Lake) -> None:
    lists = {f"s{n:04d}": [1, 2] for n in range(2000)}
    write(lake, MONDAY, lists)
    write(lake, TUESDAY, lists, publish=False)
    found = compare_nights(lake, TUESDAY, "0.50", compared_lists=200)
    assert 100 < found.compared < 400
    assert (found.lists, found.gained, found.lost, found.changed, found.overlap) == (2000, 0, 0, 0.0, 1.0)


def lists_of(sessions: int, first_item: int = 0, catalogue: int = 50) -> dict[str, list[int]]:
    """Lists of two items out of 2 * `catalogue`."""
    return {f"s{n:04d}": [first_item + n % catalogue, first_item + catalogue + n % catalogue] for n in range(sessions)}


@pytest.mark.parametrize(
    ("lists", "messages"),
    [
        (lists_of(200), []),
        (lists_of(100), ["100 lists against 200 on 2026-01-05, less than 70%; 100 lists are missing"]),
        (lists_of(200, catalogue=10), ["20 distinct items against 100"]),
        (lists_of(200, first_item=1000), ["0.0% of a list's items were in the list of 2026-01-05"]),
        ({f"s{n:04d}": [1, 51] for n in range(200)}, ["2 distinct items against 100"]),
    ],
)
def test_violations_of_each_threshold(lake: Lake, lists: dict[str, list[int]], messages: list[str]) -> None:
    write(lake, MONDAY, lists_of(200))
    write(lake, TUESDAY, lists, publish=False)
    found = violations(compare_nights(lake, TUESDAY, "0.50"), Thresholds(min_overlap=0.01))
    assert all(part in text for part, text in zip(messages, found, strict=True))


def test_violations_of_the_share_of_frequent_items(lake: Lake) -> None:
    similar = {f"s{n:04d}": [1, 2 + n] for n in range(300)}
    write(lake, MONDAY, similar, publish=False)
    found = compare_nights(lake, MONDAY, "0.50")
    assert found.top_share > 0.5
    assert violations(found) == []
    assert "contain the most frequent 1 %" in violations(found, Thresholds(max_top_share=0.5))[0]


def test_compare_nights_refuses_a_missing_partition(lake: Lake) -> None:
    with pytest.raises(InputError, match="no such partition"):
        compare_nights(lake, MONDAY, "0.50")
    with pytest.raises(InputError, match="ranked lists"):
        compare_nights(lake, MONDAY, "0.50", table="published")
