"""Exact ranks and click losses from shortlists, without scoring the whole catalogue at every preference.

The whole catalogue is scored at a few preferences, the anchors. Shortlists of their best items bound the score of every
other item at the preferences between them (`metrics.shortlist`). A result is used only where the bound proves that it
equals the result from the whole catalogue.
"""

from __future__ import annotations

import torch
from torch import Tensor

from multitron_core.front.whole_catalogue import SampledNegatives, ScoredSteps, sampled_click_loss
from multitron_core.losses.negative_table import mask_not_drawn
from multitron_core.metrics.ranking import score_blocks
from multitron_core.metrics.shortlist import Shortlist, shortlist

ANCHORS = 6
"""Number of preferences at which the whole catalogue is scored."""

_LISTED_NEGATIVES = 3
"""Negatives on each anchor's shortlist per negative that the loss keeps."""


def measure_shortlists(
    scored: ScoredSteps, negatives: SampledNegatives, *, max_rank: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Ranks and sampled click losses of all steps at all preferences, and where they are proven.

    Args:
        scored: Steps of one batch on a CPU, at preferences along a line.
        negatives: Negatives of the sampled click loss, with at least one draw.
        max_rank: Ranks beyond it are reported as `max_rank` + 1.

    Returns:
        Ranks, int64 [n, points]; click losses, float [n, points]; and bool [n, points], True where both equal those of
        `measure_whole_catalogue`. The other values must not be used.
    """
    states, targets, target_scores, items = scored
    draws, kept, mask_targets = negatives
    points = states.shape[1]
    anchors = torch.linspace(0, points - 1, ANCHORS).round().long()
    ranks = torch.zeros_like(target_scores, dtype=torch.int64)
    losses, proven = torch.zeros_like(target_scores), torch.zeros_like(ranks, dtype=torch.bool)
    for block, scores in score_blocks(states[:, anchors], items):
        block_states, target_columns = states[block], targets[block] - 1
        listed = shortlist(
            block_states, anchors, scores.flatten(0, 1), items, min(max_rank, len(items)), always=target_columns
        )
        ranks[block], block_proven = _listed_ranks(listed, target_columns, max_rank)
        total = torch.zeros_like(losses[block])
        steps = torch.arange(block.start, block.stop)
        for columns, table in draws:
            logits = scores.flatten(0, 1).index_select(1, columns)
            mask_not_drawn(logits, table, steps.repeat_interleave(ANCHORS), mask_targets)
            size = min(_LISTED_NEGATIVES * kept, logits.shape[1])
            candidates = shortlist(block_states, anchors, logits, items[columns], size)
            block_proven &= candidates.proven(kept)
            hardest, places = candidates.scores.topk(min(kept, candidates.columns.shape[1]), dim=-1)
            hardest_columns = candidates.columns[:, None].expand(-1, points, -1).gather(2, places).clamp(min=0)
            total += sampled_click_loss(
                target_scores[block].flatten(),
                hardest.flatten(0, 1),
                hardest_columns.flatten(0, 1),
                table,
                steps.repeat_interleave(points),
                kept,
            ).view_as(total)
        losses[block], proven[block] = total / len(draws), block_proven
    return ranks, losses, proven


def _listed_ranks(listed: Shortlist, targets: Tensor, max_rank: int) -> tuple[Tensor, Tensor]:
    """Ranks among the listed columns, int64 [n, points], and where they are proven, for target columns int64 [n]."""
    columns = listed.columns[:, None]
    place = (listed.columns == targets[:, None]).int().argmax(dim=1)
    target_scores = listed.scores.gather(2, place[:, None, None].expand(-1, listed.scores.shape[1], 1))
    earlier = columns < targets[:, None, None]
    before = (listed.scores > target_scores) | ((listed.scores == target_scores) & earlier)
    ranks = 1 + before.sum(dim=-1)
    return ranks.clamp(max=max_rank + 1), (target_scores.squeeze(2) > listed.bound) | (ranks > max_rank)
