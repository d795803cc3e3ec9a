"""The comparison with the night before: figures worked out by hand, and nights that must not be published."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.lake.lake import Lake
from multitron_core.lake.night_comparison import Thresholds, compare_nights, violations

MONDAY, TUESDAY, WEDNESDAY = date(2026, 1, 5), date(2026, 1, 6), date(2026, 1, 7)


@pytest.fixture
def lake(tmp_path) -> Lake:
    lake = Lake(tmp_path)
    lake.create(pl.Int64)
    return lake


def write(lake: Lake, night: date, lists: dict[str, list[int]], *, publish: bool = True) -> None:
    k = len(next(iter(lists.values())))
    rows = [(s, rank, item, -float(rank)) for s, items in sorted(lists.items()) for rank, item in enumerate(items, 1)]
    frame = pl.DataFrame(rows, schema=["session_id", "rank", "item_id", "score"], orient="row")
    lake.replace_partition(night, "0.50", [frame], model_version="7", k=k)
    if publish:
        lake.publish(night, "0.50")


def test_figures_worked_out_by_hand(lake):
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


def test_the_first_night_has_nothing_to_be_compared_with(lake):
    write(lake, MONDAY, {"a": [1, 2]}, publish=False)
    found = compare_nights(lake, MONDAY, "0.50")
    assert (found.before, found.gained, found.overlap, found.lists, found.items) == (None, None, None, 1, 2)
    assert violations(found) == []


def test_the_night_before_is_the_last_one_published_and_as_it_was_published(lake):
    write(lake, MONDAY, {"a": [1, 2]})
    write(lake, MONDAY, {"a": [8, 9]}, publish=False)
    write(lake, TUESDAY, {"a": [3, 4]}, publish=False)
    write(lake, WEDNESDAY, {"a": [2, 1]}, publish=False)
    found = compare_nights(lake, WEDNESDAY, "0.50")
    assert (found.before, found.overlap, found.changed) == (MONDAY, 1.0, 1.0)


def test_a_sample_of_the_lists_is_compared(lake):
    lists = {f"s{n:04d}": [1, 2] for n in range(2000)}
    write(lake, MONDAY, lists)
    write(lake, TUESDAY, lists, publish=False)
    found = compare_nights(lake, TUESDAY, "0.50", compared_lists=200)
    assert 100 < found.compared < 400
    assert (found.lists, found.gained, found.lost, found.changed, found.overlap) == (2000, 0, 0, 0.0, 1.0)


def lists_of(sessions: int, first_item: int = 0, catalogue: int = 50) -> dict[str, list[int]]:
    return {f"s{n:04d}": [first_item + n % catalogue, first_item + catalogue + n % catalogue] for n in range(sessions)}


@pytest.mark.parametrize(
    ("tonight", "said"),
    [
        (lists_of(200), []),
        (lists_of(100), ["100 lists against 200 on 2026-01-05, less than 70%: 100 are lost"]),
        (lists_of(200, catalogue=10), ["20 items are shown against 100"]),
        (lists_of(200, first_item=1000), ["0.0% of the items of a list were there"]),
        ({f"s{n:04d}": [1, 51] for n in range(200)}, ["2 items are shown against 100"]),
    ],
)
def test_nights_that_look_wrong(lake, tonight, said):
    write(lake, MONDAY, lists_of(200))
    write(lake, TUESDAY, tonight, publish=False)
    found = violations(compare_nights(lake, TUESDAY, "0.50"), Thresholds(min_overlap=0.01))
    assert [part in sentence for part, sentence in zip(said, found, strict=True)] == [True] * len(said)


def test_a_night_that_shows_everybody_the_same_few_items(lake):
    everybody = {f"s{n:04d}": [1, 2 + n] for n in range(300)}
    write(lake, MONDAY, everybody, publish=False)
    found = compare_nights(lake, MONDAY, "0.50")
    assert found.top_share > 0.5
    assert violations(found) == []
    assert "take" in violations(found, Thresholds(max_top_share=0.5))[0]


def test_a_partition_that_is_not_there(lake):
    with pytest.raises(InputError, match="no such partition"):
        compare_nights(lake, MONDAY, "0.50")
    with pytest.raises(InputError, match="ranked lists"):
        compare_nights(lake, MONDAY, "0.50", table="published")
