"""The scoring program: from clicks and pi to the k best items, all of it inside one torch module.

The catalogue is scored in blocks, so that memory is bounded by sessions x block_items and never by the catalogue.
The k best items are exact in fp32 and ties are broken by the smaller item index: scores are turned into 64-bit keys
(score in the upper half, complement of the index in the lower), which order as wanted and never tie.

Selecting k of n scores costs about as much as computing them, so a block is searched in two steps: the maxima of
groups of neighbouring items, then the items of the k best groups. Of groups ordered by (maximum falling, place
rising) the first k hold the k best items: an item outside them is preceded by the best item of each of those k groups.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from multitron_core.model import MultiTRON

BLOCK_ITEMS = 65_536
GROUP_ITEMS = 64
_LOW = 0xFFFFFFFF  # the lower half of a key


class ScoringProgram(nn.Module):
    """The k best items of each session, with their scores.

    Args:
        model: the trained model, in evaluation mode.
        block_items: items scored at a time, a multiple of `group_items`.
        group_items: neighbouring items whose maximum is searched first.
    """

    def __init__(self, model: MultiTRON, *, block_items: int = BLOCK_ITEMS, group_items: int = GROUP_ITEMS) -> None:
        super().__init__()
        assert block_items % group_items == 0
        self.model = model
        self.block_items, self.group_items = block_items, group_items

    def forward(
        self, items: Tensor, lengths: Tensor, pi: Tensor, k: int, excluded: Tensor, allowed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Score and select.

        Args:
            items: int64 [sessions, steps], 1-based indices, 0 behind a session's end.
            lengths: int64 [sessions], clicks a session, >= 1.
            pi: float32 [sessions, objectives].
            k: items a list, at most the items of the vocabulary.
            excluded: int64 [sessions, width >= 1], distinct indices that a session's list must not hold, 0 for none.
            allowed: float32 [items], 0 for an item that lists may hold and -inf for one that they may not.

        Returns:
            Item indices int32 [sessions, k] (1-based) and scores float32 [sessions, k], best first. Where fewer than k
            items are left, the rest have the score -inf.
        """
        states = self.model.last_states(items, lengths, pi)  # (sessions, d)
        table = self.model.item_embedding.weight
        count = table.shape[0] - 1
        candidates = k + excluded.shape[1]  # whatever is excluded, k of these are left
        keys = []
        grouped = count // self.group_items * self.group_items
        for start in range(0, grouped, self.block_items):
            stop = min(start + self.block_items, grouped)
            scores = torch.addmm(allowed[start:stop], states, table[start + 1 : stop + 1].T)  # (sessions, block)
            keys.append(self._best_of_block(scores, start + 1, candidates))
        if grouped < count:  # the last items, fewer than a group
            scores = torch.addmm(allowed[grouped:], states, table[grouped + 1 :].T)
            keys.append(_keys(scores, torch.arange(grouped + 1, count + 1, device=scores.device)))
        best, _ = torch.topk(torch.cat(keys, dim=1), torch.sym_min(candidates, count))
        _, index = _from_keys(best)  # (sessions, candidates)
        is_excluded = (index[:, :, None] == excluded[:, None, :]).any(dim=2)
        # The smallest score, not the smallest key: an excluded item keeps its index and comes behind every other one.
        lowest = _keys(torch.full_like(index, float("-inf"), dtype=torch.float32), index)
        best, _ = torch.topk(torch.where(is_excluded, lowest, best), k)
        scores, index = _from_keys(best)
        return index.to(torch.int32), scores

    def _best_of_block(self, scores: Tensor, first: int, candidates: int) -> Tensor:
        """Keys of the best items of a block, int64 [sessions, min(candidates, groups) * group_items].

        Args:
            scores: float32 [sessions, block].
            first: the index of the block's first item.
            candidates: how many of the best items must be among them.
        """
        size = self.group_items
        groups = scores.shape[1] // size
        grouped = scores.unflatten(1, (groups, size))  # (sessions, groups, group_items)
        order = torch.arange(groups, device=scores.device)
        best, _ = torch.topk(_keys(grouped.amax(dim=2), order), torch.sym_min(candidates, groups))
        group = _LOW - (best & _LOW)  # (sessions, candidates)
        chosen = grouped.gather(1, group[:, :, None].expand(-1, -1, size))  # (sessions, candidates, group_items)
        index = group[:, :, None] * size + torch.arange(first, first + size, device=scores.device)
        return _keys(chosen, index).flatten(1)


def _keys(scores: Tensor, index: Tensor) -> Tensor:
    """Int64 keys that order by (score falling, index rising) when they fall.

    A float's bits order like integers once the lower 31 bits of negative ones are flipped; adding 0.0 makes -0.0 equal
    to 0.0.
    """
    bits = (scores + 0.0).view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(torch.int64) << 32) | (_LOW - index)


def _from_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (float32) and indices (int64) of keys."""
    ordered = (keys >> 32).to(torch.int32)
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    return bits.view(torch.float32), _LOW - (keys & _LOW)
