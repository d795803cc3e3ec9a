"""`checked_lists`: valid lists pass unchanged for any batch boundaries, every violation is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitron_core.errors import InputError
from multitron_core.lake.ranked_lists import KnownItems, checked_lists
from multitron_core.sessions.vocabulary import Vocabulary

TWO_LISTS = pl.DataFrame(
    {
        "session_id": ["a", "a", "a", "b", "b", "b"],
        "rank": pl.Series([1, 2, 3, 1, 2, 3], dtype=pl.Int16),
        "item_id": [7, 8, 9, 9, 8, 7],
        "score": pl.Series([0.9, 0.5, 0.5, 3.0, -1.0, -2.0], dtype=pl.Float32),
    }
)


def check(
    *batches: pl.DataFrame,
    key: str = "session_id",
    key_type: pl.DataType | None = None,
    item_type: pl.DataType | None = None,
    k: int = 3,
    items: KnownItems | None = None,
    expected_lists: int | None = None,
) -> list[pl.DataFrame]:
    """Frames that pass the checks."""
    return list(
        checked_lists(
            batches,
            key=key,
            key_type=key_type or pl.String(),
            item_type=item_type or pl.Int64(),
            k=k,
            items=items,
            expected_lists=expected_lists,
        )
    )


def changed(row: int, **values: Any) -> pl.DataFrame:
    """The two lists with other values in one row."""
    rows = TWO_LISTS.to_dicts()
    rows[row].update(values)
    return pl.DataFrame(rows, schema=TWO_LISTS.schema)


def without(row: int) -> pl.DataFrame:
    """The two lists without one row."""
    return pl.concat([TWO_LISTS[:row], TWO_LISTS[row + 1 :]])


def test_checked_lists_pass_unchanged() -> None:
    assert pl.concat(check(TWO_LISTS)).equals(TWO_LISTS)


@given(cuts=st.lists(st.integers(0, 6), max_size=8))
@settings(max_examples=40, deadline=None)
def test_checked_lists_accept_any_batch_boundaries(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), 6]
    batches = [TWO_LISTS[start:end] for start, end in pairwise(edges)]
    passed = check(*batches)
    assert pl.concat(passed).equals(TWO_LISTS)
    assert all(len(frame) % 3 == 0 for frame in passed)


@given(row=st.integers(0, 5), cuts=st.lists(st.integers(0, 5), max_size=4))
@settings(max_examples=60, deadline=None)
def test_checked_lists_refuse_a_missing_row(row: int, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), 5]
    frame = without(row)
    with pytest.raises(InputError):
        check(*[frame[start:end] for start, end in pairwise(edges)])


def test_checked_lists_cast_wider_ranks_and_scores() -> None:
    wide = TWO_LISTS.with_columns(pl.col("rank").cast(pl.Int64), pl.col("score").cast(pl.Float64))
    assert pl.concat(check(wide)).equals(TWO_LISTS)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (changed(1, rank=3), "ranks must run 1..3"),
        (changed(0, rank=0), "ranks must run 1..3"),
        (changed(2, session_id="b"), "must have exactly 3 items"),
        (pl.concat([TWO_LISTS[:2], TWO_LISTS[3:4]]), "must have exactly 3 items"),
        (TWO_LISTS[:2], "a list has 2 items, not 3"),
        (pl.concat([TWO_LISTS[3:], TWO_LISTS[:3]]), "sorted by session_id"),
        (pl.concat([TWO_LISTS, TWO_LISTS[3:]]), "sorted by session_id"),
        (changed(1, score=float("nan")), "finite"),
        (changed(1, score=float("inf")), "finite"),
        (changed(2, score=float("-inf")), "finite"),
        (changed(1, score=0.91), "scores must not rise"),
        (changed(1, item_id=7), "no item may occur twice"),
        (changed(1, item_id=None), "a value is missing"),
        (changed(1, session_id=None), "a value is missing"),
        (TWO_LISTS.drop("score"), "unexpected columns"),
        (TWO_LISTS.with_columns(extra=1), "unexpected columns"),
        (TWO_LISTS.cast({"item_id": pl.Int32}), "wrong type"),
        (TWO_LISTS.cast({"session_id": pl.Categorical}), "wrong type"),
        (TWO_LISTS.cast({"rank": pl.Float32}), "ranks must be integers"),
        (TWO_LISTS.cast({"rank": pl.Int64}).with_columns(rank=pl.col("rank") + 65_536), "ranks must run 1..3"),
        (TWO_LISTS.clear(), "no rows"),
    ],
)
def test_checked_lists_refuse_wrong_rows(frame: pl.DataFrame, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(frame)


def test_checked_lists_name_list_rank_and_value() -> None:
    with pytest.raises(InputError, match=r"session_id 'b', rank 2") as error:
        check(changed(4, score=5.0))
    assert "5.0" in str(error.value)


def test_checked_lists_refuse_a_repeated_list() -> None:
    with pytest.raises(InputError, match="each may occur only once"):
        check(TWO_LISTS, TWO_LISTS[3:])


@pytest.mark.parametrize("items", [[7, 8, 9], {9, 8, 7}, pl.Series([8, 7, 9, 10]), Vocabulary(pl.Series([9, 7, 8]))])
def test_checked_lists_accept_known_items(items: KnownItems) -> None:
    assert len(check(TWO_LISTS, items=items)) == 1


@pytest.mark.parametrize("items", [[7, 8], [8, 9], [7, 9], [], pl.Series([1, 2, 3])])
def test_checked_lists_refuse_an_unknown_item(items: KnownItems) -> None:
    with pytest.raises(InputError, match="not in the vocabulary"):
        check(TWO_LISTS, items=items)


def test_checked_lists_of_string_items() -> None:
    frame = TWO_LISTS.cast({"item_id": pl.String})
    assert len(check(frame, item_type=pl.String(), items=["9", "8", "7"])) == 1
    with pytest.raises(InputError, match="'8'"):
        check(frame, item_type=pl.String(), items=["9", "7"])
    with pytest.raises(InputError, match="another type"):
        check(frame, item_type=pl.String(), items=pl.Series([7, 8, 9]))


def test_checked_lists_with_integer_keys() -> None:
    frame = TWO_LISTS.select(pl.Series("for_item_id", [3, 3, 3, 20, 20, 20]), "rank", "item_id", "score")
    assert len(check(frame, key="for_item_id", key_type=pl.Int64())) == 1


def test_checked_lists_count_the_lists() -> None:
    assert len(check(TWO_LISTS, expected_lists=2)) == 1
    with pytest.raises(InputError, match="expected 3"):
        check(TWO_LISTS, expected_lists=3)


def test_checked_lists_refuse_k_of_zero() -> None:
    with pytest.raises(InputError, match=r"outside 1\.\.32767"):
        check(TWO_LISTS, k=0)
