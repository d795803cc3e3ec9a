from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitron_core.losses.negatives import draw_in_batch, draw_negatives, draw_uniform, log_draw_rates
from multitron_core.sessions.batches import Batch


def batch_of(inputs: list[list[int]], last: list[int]) -> Batch:
    """Sessions given by their inputs and their last click, sorted by length."""
    flat = [item for session in inputs for item in session]
    targets = [item for session, end in zip(inputs, last, strict=True) for item in [*session[1:], end]]
    lengths = np.array([len(session) for session in inputs])
    return Batch(np.arange(len(inputs)), lengths, np.array(flat), np.array(targets), np.zeros(len(flat), dtype=bool))


def test_draw_uniform_draws_allowed_items_equally_often() -> None:
    drawn = draw_uniform(np.array([1, 4, 5, 9]), 10, 60_000, np.random.default_rng(1))
    items, counts = np.unique(drawn, return_counts=True)
    assert items.tolist() == [2, 3, 6, 7, 8, 10]
    assert counts.min() > 9_500  # 10,000 expected, standard deviation 91
    assert counts.max() < 10_500


def test_draw_uniform_of_no_allowed_item_is_empty() -> None:
    assert len(draw_uniform(np.array([1, 2, 3]), 3, 100, np.random.default_rng(1))) == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 12), st.integers(0, 99))
def test_draw_in_batch_draws_distinct_steps_of_others(lengths: list[int], draws: int, seed: int) -> None:
    sizes = np.array(lengths)
    chosen = draw_in_batch(sizes, draws, np.random.default_rng(seed))
    assert chosen.shape == (len(lengths), draws)
    starts = np.cumsum(sizes) - sizes
    for session, row in enumerate(chosen):
        real = row[row >= 0]
        assert len(real) == min(draws, sizes.sum() - sizes[session])
        assert len(set(real.tolist())) == len(real)
        own = (real >= starts[session]) & (real < starts[session] + sizes[session])
        assert not own.any()
        assert (real < sizes.sum()).all()


def test_draw_in_batch_is_uniform_over_subsets() -> None:
    # Session 0 has one step; the others have 4: the 6 pairs of them should come equally often.
    rng = np.random.default_rng(1)
    pairs = [tuple(sorted(draw_in_batch(np.array([1, 2, 2]), 2, rng)[0].tolist())) for _ in range(6_000)]
    found, counts = np.unique(np.array(pairs), axis=0, return_counts=True)
    assert len(found) == 6
    assert counts.min() > 850  # 1,000 expected, standard deviation 29
    assert counts.max() < 1_150


def test_draw_negatives_columns_are_distinct_and_copies_sum() -> None:
    batch = batch_of([[1, 2], [3, 1, 4], [2, 2, 5, 6]], last=[9, 2, 8])
    found = draw_negatives(batch, 12, uniform=50, in_batch=3, rng=np.random.default_rng(1))
    every = np.concatenate([found.batch_items, found.uniform_items])
    assert len(set(every.tolist())) == len(every)
    assert found.batch_items[found.inputs].tolist() == batch.inputs.tolist()
    assert found.batch_items[found.targets].tolist() == batch.targets.tolist()
    assert (found.batch_copies.sum(axis=1) + found.uniform_copies.sum() == 53).all()
    # 8 and 9 are targets but no inputs, so uniform draws may give them; 1 to 6 are inputs, so they may not.
    shared = np.isin(found.batch_items, [8, 9])
    assert (found.batch_copies[:, shared] > 0).all()
    assert (found.batch_copies[:, ~shared].sum(axis=1) == 3).all()
    assert not set(found.uniform_items.tolist()) & set(range(1, 7))


def test_draw_negatives_excludes_a_sessions_inputs() -> None:
    batch = batch_of([[1, 2], [3, 4]], last=[5, 6])
    found = draw_negatives(batch, 6, uniform=0, in_batch=32, rng=np.random.default_rng(1))
    drawn = [found.batch_items[row > 0].tolist() for row in found.batch_copies]
    assert drawn == [[3, 4], [1, 2]]


def test_draw_negatives_of_one_session_are_uniform_only() -> None:
    found = draw_negatives(batch_of([[1, 2]], last=[3]), 5, uniform=20, in_batch=32, rng=np.random.default_rng(1))
    assert set(found.uniform_items.tolist()) == {4, 5}
    assert found.batch_copies[:, :2].tolist() == [[0, 0]]
    assert found.batch_copies.sum() + found.uniform_copies.sum() == 20


@pytest.mark.parametrize("uniform", [0, 10])
def test_draw_negatives_of_a_whole_catalogue_are_in_batch_only(uniform: int) -> None:
    found = draw_negatives(batch_of([[1], [2, 1]], last=[2, 1]), 2, uniform, in_batch=8, rng=np.random.default_rng(1))
    assert len(found.uniform_items) == 0
    assert found.batch_copies.tolist() == [[1, 1], [1, 0]]


def test_log_draw_rates_of_four_items_by_hand() -> None:
    # Of 4 items the first is 3 of 4 inputs and the second 1. Batches without a step exclude no input: two uniform draws
    # are half a draw per item, two in-batch draws 1.5 and 0.5 of the first two; if all were uniform, one each.
    counts = np.array([0, 3, 1, 0, 0])
    found = log_draw_rates(counts, uniform=2, in_batch=2, batch_steps=0.0)
    np.testing.assert_allclose(found, [0.0, np.log(2.0), 0.0, np.log(0.5), np.log(0.5)])
    # In batches of 4 ln 2 steps the first is absent from an eighth, the second from a half, the others from all:
    # 1 / 8, 1 / 2, 1, 1 of 21 / 8.
    found = log_draw_rates(counts, uniform=21, in_batch=0, batch_steps=4.0 * np.log(2.0))
    np.testing.assert_allclose(found, np.log([1.0, 4 / 21, 16 / 21, 32 / 21, 32 / 21]))
    # In batches with every item there is no uniform draw: 1.5 and 0.5 draws, where four would be two each.
    found = log_draw_rates(np.array([0, 3, 1]), uniform=2, in_batch=2, batch_steps=1e4)
    np.testing.assert_allclose(found, np.log([1.0, 0.75, 0.25]))
    # Without uniform draws the last two are never drawn: nothing to correct.
    found = log_draw_rates(counts, uniform=0, in_batch=2, batch_steps=1.0)
    np.testing.assert_allclose(found, [0.0, np.log(3.0), 0.0, 0.0, 0.0])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(0, 99), st.integers(0, 9), st.floats(0.0, 50.0)
)
def test_log_draw_rates_have_mean_one(counts: list[int], uniform: int, in_batch: int, batch_steps: float) -> None:
    inputs = np.array([0, *counts])
    found = log_draw_rates(inputs, uniform, in_batch, batch_steps)
    assert np.isfinite(found).all()
    assert found[0] == 0.0
    if uniform and inputs.sum():
        assert np.exp(found[1:]).mean() == pytest.approx(1.0)


def test_log_draw_rates_match_the_draws() -> None:
    """Popular and rare items, drawn in two thousand batches by the rules of a step: within 10 % of the formula."""
    random = np.random.default_rng(0)
    items, sessions, steps = 60, 8, 2
    popularity = 1.0 / np.arange(1, items + 1)
    popularity /= popularity.sum()
    drawn, inputs = np.zeros(items + 1), np.zeros(items + 1, dtype=np.int64)
    for _ in range(2_000):
        of_sessions = random.choice(items, (sessions, steps), p=popularity) + 1
        batch = batch_of(of_sessions.tolist(), [1] * sessions)
        found = draw_negatives(batch, items, 20, 4, random)
        drawn[found.batch_items] += found.batch_copies.mean(axis=0)
        drawn[found.uniform_items] += found.uniform_copies
        inputs += np.bincount(batch.inputs, minlength=items + 1)
    rates = np.exp(log_draw_rates(inputs, 20, 4, sessions * steps))[1:]
    relative = drawn[1:] / drawn.sum() * items
    for group in (slice(0, 3), slice(3, 12), slice(12, 60)):
        assert relative[group].mean() == pytest.approx(rates[group].mean(), rel=0.1)
