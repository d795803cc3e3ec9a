"""Exact ranks and click losses from the scores of the whole catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multitron_core.losses.negative_table import NegativeTable, log_copies, mask_not_drawn
from multitron_core.losses.objective_losses import click_loss
from multitron_core.metrics.ranking import score_blocks, target_ranks
from multitron_core.training.config import TrainingConfig
from multitron_core.utils.topk import top_k


class ScoredSteps(NamedTuple):
    """The steps of one batch at every preference, ready to be ranked.

    Args:
        states: float [n, points, d], the model's state after each step's clicks.
        targets: int64 [n], 1-based item indices.
        target_scores: float [n, points], the scores of the targets.
        items: float [items, d], the item embeddings without the padding row.
        draws: One entry per draw of negatives: columns of the catalogue, int64 [b + u], and the sessions that drew
            them. Empty for the exact click loss.
    """

    states: Tensor
    targets: Tensor
    target_scores: Tensor
    items: Tensor
    draws: Sequence[tuple[Tensor, NegativeTable]]


def measure_whole_catalogue(
    scored: ScoredSteps, cells: Tensor, config: TrainingConfig, *, max_rank: int
) -> tuple[Tensor, Tensor]:
    """Ranks and click losses of some cells; a cell is one step at one preference.

    Args:
        scored: Steps of one batch.
        cells: int64 [c], the wanted cells as indices into the flattened [n * points].
        config: Settings of the click loss.
        max_rank: Ranks beyond it are reported as `max_rank` + 1.

    Returns:
        Ranks, int64 [c], and click losses, float [c]: the mean over the draws of negatives, or the softmax loss over
        the whole catalogue where there are none.
    """
    steps = cells // scored.states.shape[1]
    target_scores = scored.target_scores.flatten()[cells]
    ranks, losses = torch.zeros_like(steps), torch.zeros_like(target_scores)
    for block, scores in score_blocks(scored.states.flatten(0, 1)[cells], scored.items):
        block_steps, block_targets = steps[block], target_scores[block]
        ranks[block] = target_ranks(scores, scored.targets[block_steps]).clamp(max=max_rank + 1)
        if not scored.draws:
            losses[block] = torch.logsumexp(scores, dim=1) - block_targets
            continue
        total = torch.zeros_like(block_targets)
        for columns, negatives in scored.draws:
            logits = scores.index_select(1, columns)
            mask_not_drawn(logits, negatives, block_steps, config.collisions == "masked")
            hardest = top_k(logits, min(config.kept_negatives, logits.shape[1]))
            total += sampled_click_loss(block_targets, *hardest, negatives, block_steps, config)
        losses[block] = total / len(scored.draws)
    return ranks, losses


def sampled_click_loss(
    target_scores: Tensor,
    logits: Tensor,
    columns: Tensor,
    negatives: NegativeTable,
    steps: Tensor,
    config: TrainingConfig,
) -> Tensor:
    """The click loss of training, given the hardest negatives.

    Args:
        target_scores: float [n], the scores of the targets.
        logits: float [n, kept], the largest logits of the negatives, falling.
        columns: int64 [n, kept], their columns in `negatives`.
        negatives: Negatives of the batch.
        steps: int64 [n], the step of each row.
        config: How many negatives count per step.

    Returns:
        float [n].
    """
    rows = negatives._replace(session_of_step=negatives.session_of_step[steps])
    return click_loss(target_scores, logits + log_copies(columns, rows, config.kept_negatives))
