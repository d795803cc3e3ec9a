"""Exact ranks and losses of chosen cells, on scores that are written out."""

from __future__ import annotations

import math

import torch

from multitron_core.front.whole_catalogue import ScoredSteps, measure_whole_catalogue, sampled_click_loss
from multitron_core.losses.negative_table import NegativeTable

# Item embeddings are unit vectors, so a state holds the scores of the three items.
STATES = torch.tensor([[[1.0, 2.0, 0.0], [3.0, 2.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, 1.0, 2.0]]])  # (2 steps, 2 points)
TARGETS = torch.tensor([2, 3])
SCORED = ScoredSteps(STATES, TARGETS, torch.tensor([[2.0, 2.0], [0.0, 2.0]]), torch.eye(3))


def test_measure_whole_catalogue_measures_only_the_given_cells() -> None:
    ranks, losses = measure_whole_catalogue(SCORED, torch.tensor([3, 1]), None, max_rank=100)
    assert ranks.tolist() == [1, 2]
    normalisers = [math.log(1 + math.e + math.e**2), math.log(math.e**3 + math.e**2 + 1)]
    torch.testing.assert_close(losses, torch.tensor(normalisers) - 2.0)


def test_measure_whole_catalogue_cuts_ranks_at_max_rank() -> None:
    ranks, _ = measure_whole_catalogue(SCORED, torch.arange(4), None, max_rank=1)
    assert ranks.tolist() == [1, 2, 2, 1]  # the third has the rank 3


def test_sampled_click_loss_counts_each_copy() -> None:
    """One session that drew column 0 twice: log(e^2 + 2 e) - 2."""
    negatives = NegativeTable(
        batch_copies=torch.tensor([[2.0]]),
        uniform_copies=torch.empty(0),
        absent=torch.tensor([[False]]),
        session_of_step=torch.tensor([0]),
        targets=torch.tensor([0]),
    )
    found = sampled_click_loss(
        torch.tensor([2.0]), torch.tensor([[1.0]]), torch.tensor([[0]]), negatives, torch.tensor([0]), 8
    )
    torch.testing.assert_close(found, torch.tensor([math.log(math.e**2 + 2 * math.e) - 2.0]))
