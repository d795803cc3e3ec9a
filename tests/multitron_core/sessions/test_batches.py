"""Batches, their order and their rectangles, against small examples and exhaustive search."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitron_core.errors import InputError
from multitron_core.sessions.batches import (
    epoch_order,
    length_groups,
    make_batch,
    part_of,
    random_of,
    rectangles,
    training_rows,
)
from multitron_core.sessions.encoded import EncodedSessions

CLICKS = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10, 11]]
ORDERED = [[True, False, True], [True], [False, True], [False, False, True, False, True]]


def sessions(clicks: list[list[int]], ordered: list[list[bool]]) -> EncodedSessions:
    return EncodedSessions(
        pl.Series([f"s{i}" for i in range(len(clicks))], dtype=pl.String),
        np.concatenate([[0], np.cumsum([len(c) for c in clicks])]).astype(np.int64),
        np.array([c for session in clicks for c in session], dtype=np.int32),
        np.array([o for session in ordered for o in session], dtype=bool),
        "hash",
    )


def test_make_batch_sorts_by_length_and_targets_next_click() -> None:
    batch = make_batch(sessions(CLICKS, ORDERED), np.array([3, 0, 2]), max_length=50)
    assert batch.sessions.tolist() == [2, 0, 3]
    assert batch.lengths.tolist() == [1, 2, 4]
    assert batch.inputs.tolist() == [5, 1, 2, 7, 8, 9, 10]
    assert batch.targets.tolist() == [6, 2, 3, 8, 9, 10, 11]
    assert batch.ordered.tolist() == [True, False, True, False, True, False, True]  # of the target
    assert batch.starts.tolist() == [0, 1, 3]
    assert batch.session_of_step.tolist() == [0, 1, 1, 2, 2, 2, 2]


def test_make_batch_uses_last_clicks() -> None:
    batch = make_batch(sessions(CLICKS, ORDERED), np.array([3]), max_length=2)
    assert batch.inputs.tolist() == [9, 10]
    assert batch.targets.tolist() == [10, 11]


def test_training_rows_have_two_clicks() -> None:
    assert training_rows(sessions(CLICKS, ORDERED)).tolist() == [0, 2, 3]


def test_make_batch_refuses_sessions_of_one_click() -> None:
    data = sessions(CLICKS, ORDERED)
    with pytest.raises(InputError, match="two clicks"):
        make_batch(data, np.array([0, 1]), max_length=50)
    with pytest.raises(InputError, match="two clicks"):
        make_batch(data, np.array([], dtype=np.int64), max_length=50)


def test_epoch_order_depends_on_seed_and_epoch() -> None:
    rows = np.arange(100)
    first, second = (epoch_order(rows, "shuffled", 1, epoch) for epoch in (0, 1))
    assert sorted(first.tolist()) == rows.tolist()
    assert first.tolist() != second.tolist()
    assert first.tolist() == epoch_order(rows, "shuffled", 1, 0).tolist()
    assert first.tolist() != epoch_order(rows, "shuffled", 2, 0).tolist()
    assert epoch_order(rows, "chronological", 1, 0).tolist() == rows.tolist()


def test_random_of_differs_between_batches() -> None:
    draws = {
        tuple(random_of(*place).integers(0, 1 << 30, 4)) for place in [(1, 0, 0), (1, 0, -1), (1, 1, 0), (1, -1, 0)]
    }
    assert len(draws) == 4


def cost(lengths: np.ndarray, cuts: list[int], overhead: int) -> int:
    return sum(
        (last - first) * int(lengths[last - 1]) + overhead for first, last in zip([0, *cuts], cuts, strict=False)
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=7), st.integers(0, 8))
def test_length_groups_have_least_cost(lengths: list[int], overhead: int) -> None:
    rising = np.sort(np.array(lengths))
    cuts = length_groups(rising, overhead)
    n = len(rising)
    all_cuts = ([i + 1 for i in range(n - 1) if chosen >> i & 1] + [n] for chosen in range(1 << (n - 1)))
    assert cuts[-1] == n
    assert cost(rising, cuts, overhead) == min(cost(rising, other, overhead) for other in all_cuts)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, 12), min_size=1, max_size=20), st.sampled_from([0, 5, 1 << 30]))
def test_rectangles_contain_every_step_once(lengths: list[int], overhead: int) -> None:
    clicks = [list(range(1, length + 1)) for length in lengths]
    batch = make_batch(sessions(clicks, [[False] * n for n in lengths]), np.arange(len(lengths)), max_length=8)
    found = rectangles(batch, overhead)
    steps = np.concatenate([part.source.ravel()[part.cells] for part in found])
    assert steps.tolist() == list(range(len(batch.inputs)))
    for part in found:
        assert (part.source >= 0).sum(axis=1).tolist() == batch.lengths[part.first : part.last].tolist()


def test_part_of_splits_the_batch_between_processes() -> None:
    batch = make_batch(sessions(CLICKS, ORDERED), np.array([0, 2, 3]), max_length=50)
    parts = [part_of(batch, rank, 2) for rank in range(2)]
    assert [part.sessions.tolist() for part, _ in parts] == [[2, 3], [0]]
    assert sorted(np.concatenate([steps for _, steps in parts]).tolist()) == list(range(7))
    for part, steps in parts:
        assert part.targets.tolist() == batch.targets[steps].tolist()
        assert len(part.inputs) == part.lengths.sum()
    assert len(part_of(batch, 3, 4)[0].lengths) == 0
