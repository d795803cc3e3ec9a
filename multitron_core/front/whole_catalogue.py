"""Exact ranks and click losses from the scores of the whole catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multitron_core.losses.negative_table import NegativeTable, log_copies, mask_not_drawn
from multitron_core.losses.objective_losses import click_loss
from multitron_core.metrics.ranking import score_blocks, target_ranks
from multitron_core.utils.topk import top_k


class SampledNegatives(NamedTuple):
    """Sampled negatives of one batch.

    Args:
        draws: One entry per draw: columns of the catalogue, int64 [b + u], and the sessions that drew them.
        kept: Number of hardest negatives per step that the loss keeps.
        mask_targets: Whether the target of a step is excluded from its negatives.
    """

    draws: Sequence[tuple[Tensor, NegativeTable]]
    kept: int
    mask_targets: bool


class ScoredSteps(NamedTuple):
    """The steps of one batch at every preference, ready to be ranked.

    Args:
        states: float [n, points, d], the model's state after each step's clicks.
        targets: int64 [n], 1-based item indices.
        target_scores: float [n, points], the scores of the targets.
        items: float [items, d], the item embeddings without the padding row.
    """

    states: Tensor
    targets: Tensor
    target_scores: Tensor
    items: Tensor


def measure_whole_catalogue(
    scored: ScoredSteps, cells: Tensor, negatives: SampledNegatives | None, *, max_rank: int
) -> tuple[Tensor, Tensor]:
    """Ranks and click losses of some cells; a cell is one step at one preference.

    Args:
        scored: Steps of one batch.
        cells: int64 [c], the wanted cells as indices into the flattened [n * points].
        negatives: Negatives of the sampled click loss; None for the exact click loss.
        max_rank: Ranks beyond it are reported as `max_rank` + 1.

    Returns:
        Ranks, int64 [c], and click losses, float [c]: the mean over the draws of negatives, or the exact softmax
        loss.
    """
    steps = cells // scored.states.shape[1]
    target_scores = scored.target_scores.flatten()[cells]
    ranks, losses = torch.zeros_like(steps), torch.zeros_like(target_scores)
    for block, scores in score_blocks(scored.states.flatten(0, 1)[cells], scored.items):
        block_steps, block_targets = steps[block], target_scores[block]
        ranks[block] = target_ranks(scores, scored.targets[block_steps]).clamp(max=max_rank + 1)
        if negatives is None:
            losses[block] = torch.logsumexp(scores, dim=1) - block_targets
            continue
        total = torch.zeros_like(block_targets)
        draws, kept, mask_targets = negatives
        for columns, table in draws:
            logits = scores.index_select(1, columns)
            mask_not_drawn(logits, table, block_steps, mask_targets)
            hardest = top_k(logits, min(kept, logits.shape[1]))
            total += sampled_click_loss(block_targets, *hardest, table, block_steps, kept)
        losses[block] = total / len(draws)
    return ranks, losses


def sampled_click_loss(
    target_scores: Tensor,
    logits: Tensor,
    columns: Tensor,
    table: NegativeTable,
    steps: Tensor,
    kept: int,
) -> Tensor:
    """The click loss of training, given the hardest negatives.

    Args:
        target_scores: float [n], the scores of the targets.
        logits: float [n, w], the largest logits of the negatives in descending order.
        columns: int64 [n, w], their columns in `table`.
        table: Negatives of the batch.
        steps: int64 [n], the step of each row.
        kept: Number of negatives per step that the loss keeps.

    Returns:
        float [n].
    """
    rows = table._replace(session_of_step=table.session_of_step[steps])
    return click_loss(target_scores, logits + log_copies(columns, rows, kept))
