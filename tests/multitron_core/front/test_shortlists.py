"""Shortlists against the whole catalogue, on the same steps and negatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from multitron_core.front.shortlists import measure_shortlists
from multitron_core.front.whole_catalogue import SampledNegatives, ScoredSteps, measure_whole_catalogue
from multitron_core.losses.negative_table import NegativeTable
from multitron_core.losses.negatives import draw_negatives
from multitron_core.metrics.steps import evaluation_batches, step_states
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.spacing import spaced_preferences
from multitron_core.sessions.batches import Batch
from tests.multitron_core.front.conftest import ITEMS, random_sessions


def draw(batch: Batch, seed: int) -> tuple[torch.Tensor, NegativeTable]:
    """Negatives of a batch: columns of the catalogue and the sessions that drew them."""
    drawn = draw_negatives(batch, ITEMS, 40, 3, np.random.default_rng(seed))
    negatives = NegativeTable(
        batch_copies=torch.from_numpy(drawn.batch_copies).float(),
        uniform_copies=torch.from_numpy(drawn.uniform_copies).float(),
        absent=torch.from_numpy(drawn.batch_copies) == 0,
        session_of_step=torch.from_numpy(batch.session_of_step),
        targets=torch.from_numpy(drawn.targets),
    )
    return torch.from_numpy(np.concatenate([drawn.batch_items, drawn.uniform_items]) - 1), negatives


@pytest.mark.parametrize("factor", [1.0, 100.0])
@torch.inference_mode()
def test_measure_shortlists_proven_equals_whole_catalogue(model: MultiTRON, factor: float) -> None:
    """Factor 1: pi moves the states a little; factor 100: pi turns them around. In both, some cells are proven."""
    model.linear.weight[:, -2:] *= factor
    shares = []
    for batch in evaluation_batches(random_sessions(40), 5, batch_sessions=4):
        pi = [torch.tensor([1.0 - order, order]) for order in spaced_preferences(15)]
        states = torch.stack([step_states(model, batch, point) for point in pi], dim=1)
        items, targets = model.item_embedding.weight[1:], torch.from_numpy(batch.targets)
        target_scores = (states * items[targets - 1][:, None]).sum(dim=-1)
        scored = ScoredSteps(states, targets, target_scores, items)
        negatives = SampledNegatives([draw(batch, seed) for seed in (1, 2)], kept=2, mask_targets=True)
        ranks, losses, proven = measure_shortlists(scored, negatives, max_rank=5)
        cells = torch.arange(ranks.numel())
        whole_ranks, whole_losses = measure_whole_catalogue(scored, cells, negatives, max_rank=5)
        torch.testing.assert_close(ranks[proven], whole_ranks.view_as(ranks)[proven], rtol=0, atol=0)
        torch.testing.assert_close(losses[proven], whole_losses.view_as(losses)[proven], rtol=0, atol=1e-5)
        shares.append(proven.float().mean())
    assert 0.02 < np.mean(shares) < 0.98
