"""Shortlists against scores of the whole table."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitron_core.metrics.shortlist import Shortlist, shortlist

STEPS, POINTS, COLUMNS, DIMENSION = 3, 9, 60, 6
ANCHORS = torch.tensor([0, 4, 8])


def random_states(seed: int, bend: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States along a bent line, a table, and the columns that are not allowed for each step."""
    rng = np.random.default_rng(seed)
    start, end, off = rng.normal(size=(3, STEPS, 1, DIMENSION))
    t = np.linspace(0.0, 1.0, POINTS)[None, :, None]
    states = (1 - t) * start + t * end + bend * t * (1 - t) * off
    forbidden = rng.random((STEPS, COLUMNS)) < rng.choice([0.0, 0.2, 0.9])
    table = rng.normal(size=(COLUMNS, DIMENSION))
    return torch.from_numpy(states).float(), torch.from_numpy(table).float(), torch.from_numpy(forbidden)


def listed(
    states: torch.Tensor, table: torch.Tensor, forbidden: torch.Tensor, size: int, always: torch.Tensor | None = None
) -> tuple[Shortlist, torch.Tensor]:
    """The shortlists, and the scores of the whole table, float [steps, points, columns]."""
    whole = (states @ table.T).masked_fill_(forbidden[:, None], -torch.inf)
    return shortlist(states, ANCHORS, whole[:, ANCHORS].flatten(0, 1), table, size, always), whole


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 1.0, 10.0]), st.integers(1, COLUMNS), st.integers(1, 20))
def test_proven_top_k_equals_that_of_the_whole_table(seed: int, bend: float, size: int, k: int) -> None:
    short, whole = listed(*random_states(seed, bend), size)
    assert short.scores.shape == (STEPS, POINTS, short.columns.shape[1])
    for step, point in torch.nonzero(short.proven(k)).tolist():
        found = short.scores[step, point].sort(descending=True).values[:k]
        expected = whole[step, point].sort(descending=True).values[:k]
        found, expected = found[found > -torch.inf], expected[expected > -torch.inf]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 1.0, 10.0]), st.integers(1, COLUMNS))
def test_bound_holds_for_columns_that_are_not_listed(seed: int, bend: float, size: int) -> None:
    short, whole = listed(*random_states(seed, bend), size)
    for step in range(STEPS):
        others = sorted(set(range(COLUMNS)) - set(short.columns[step].tolist()))
        assert (whole[step][:, others] <= short.bound[step][:, None]).all()


def test_shortlist_columns_are_distinct_and_ascending() -> None:
    states, table, forbidden = random_states(1, 1.0)
    short, whole = listed(states, table, forbidden, 5)
    for step, columns in enumerate(short.columns):
        real = columns[columns >= 0]
        assert (real.diff() > 0).all()
        assert 5 <= len(real) <= 15
        torch.testing.assert_close(short.scores[step][:, columns >= 0], whole[step][:, real])
        assert (short.scores[step][:, columns < 0] == -torch.inf).all()


def test_proven_depends_on_the_path_of_the_states() -> None:
    states, table, _ = random_states(1, 0.0)
    nothing = torch.zeros(STEPS, COLUMNS, dtype=torch.bool)
    assert listed(states, table, nothing, 20)[0].proven(3).all()
    jumping = 10.0 * torch.randn(states.shape, generator=torch.Generator().manual_seed(1))
    proven = listed(jumping, table, nothing, 20)[0].proven(3)
    assert proven[:, ANCHORS].all()
    assert not proven.all()


def test_shortlist_contains_the_requested_column() -> None:
    states, table, forbidden = random_states(2, 1.0)
    last = torch.full((STEPS,), COLUMNS - 1)
    short, _ = listed(states, table, forbidden, 1, always=last)
    assert (short.columns == last[:, None]).any(dim=1).all()
