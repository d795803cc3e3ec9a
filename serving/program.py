"""The scoring program: from clicks and pi to the k best items, all of it inside one torch module.

The catalogue is scored in blocks, so that memory is bounded by sessions x block_items and never by the catalogue.
The k best items are exact in fp32 and ties are broken by the smaller item index: scores are turned into 64-bit keys
(score in the upper half, complement of the index in the lower), which order as wanted and never tie.

Selecting k of n scores costs about as much as computing them, so a block is searched in two steps: the maxima of
groups of items, then the items of the k best groups. Of groups of neighbours ordered by (maximum falling, place
rising) the first k hold the k best items: an item outside them is preceded by the best item of each of those k groups.

With a screen, the whole catalogue is scored in bfloat16, a few more than k candidates are scored again in fp32, and a
bound on the rounding proves for each session that no other item can be among its k best. The sessions for which it
does not prove it (near ties at the end of the list) are scored in fp32 throughout. The result is the same fp32 list.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multitron_core.model import MultiTRON

BLOCK_ITEMS = 65_536
GROUP_ITEMS = 64
SCREEN_GROUP_ITEMS = 32
SCREEN_SLACK = 28
"""Candidates beyond k and the exclusions: enough that almost every list is proven, few enough to score again."""

_LOW = 0xFFFFFFFF  # the lower half of a key
_INFINITY = float("inf")


@dataclass(frozen=True)
class Screen:
    """The item table in bfloat16 and what bounds its rounding.

    Args:
        table: bfloat16 [items, d], the item of index i at i - 1.
        norms: float32 [2], the largest Euclidean norm of a row of `table`, and of its difference from the fp32 table.
    """

    table: Tensor
    norms: Tensor

    @staticmethod
    def of(table: Tensor) -> Screen:
        """The screen of an item table, float32 [items, d]."""
        rounded = torch.empty(table.shape, dtype=torch.bfloat16)
        norms = torch.zeros(2)
        for part, target in zip(table.split(BLOCK_ITEMS), rounded.split(BLOCK_ITEMS), strict=True):
            target.copy_(part)
            kept, lost = target.float(), part - target.float()
            norms = torch.maximum(norms, torch.stack([kept.norm(dim=1).max(), lost.norm(dim=1).max()]))
        return Screen(rounded, norms)


class ScoringProgram(nn.Module):
    """The k best items of each session, with their scores.

    Args:
        model: the trained model, in evaluation mode.
        screen: of the model's item table; None scores in fp32 throughout.
        block_items: items scored at a time.
    """

    screen_table: Tensor
    screen_norms: Tensor

    def __init__(self, model: MultiTRON, *, screen: Screen | None = None, block_items: int = BLOCK_ITEMS) -> None:
        super().__init__()
        self.model = model
        self.block_items = block_items
        self.screened = screen is not None
        if screen is not None:
            self.register_buffer("screen_table", screen.table)
            self.register_buffer("screen_norms", screen.norms)

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
        best = (
            self._screened(states, k, excluded, allowed) if self.screened else self._exact(states, k, excluded, allowed)
        )
        scores, index = _from_keys(best)
        return index.to(torch.int32), scores

    def _exact(self, states: Tensor, k: int, excluded: Tensor, allowed: Tensor) -> Tensor:
        """Keys of the lists, int64 [sessions, k], from fp32 scores of the whole catalogue."""
        table = self.model.item_embedding.weight
        count = table.shape[0] - 1
        candidates = torch.sym_min(k + excluded.shape[1], count)  # whatever is excluded, k of these are left
        keys = []
        for start in range(0, count, self.block_items):
            stop = min(start + self.block_items, count)
            scores = torch.addmm(allowed[start:stop], states, table[start + 1 : stop + 1].T)  # (sessions, block)
            whole = (stop - start) // GROUP_ITEMS * GROUP_ITEMS
            if whole:
                keys.append(_best_of_groups(scores[:, :whole], start + 1, candidates))
            if whole < stop - start:  # the last items, fewer than a group
                keys.append(_keys(scores[:, whole:], torch.arange(start + whole + 1, stop + 1, device=scores.device)))
        best, _ = torch.topk(torch.cat(keys, dim=1), candidates)
        return _without(best, excluded, k)

    def _screened(self, states: Tensor, k: int, excluded: Tensor, allowed: Tensor) -> Tensor:
        """The same keys, from fp32 scores of the candidates that the bfloat16 scores leave."""
        table = self.model.item_embedding.weight
        count = table.shape[0] - 1
        candidates = torch.sym_min(k + excluded.shape[1] + SCREEN_SLACK, count)
        rounded = states.to(torch.bfloat16)
        found = []
        for start in range(0, count, self.block_items):
            stop = min(start + self.block_items, count)
            # A bias of -inf keeps an item out at no cost: the matrix product adds it anyway.
            bias = allowed[start:stop].to(torch.bfloat16)
            scores = F.linear(rounded, self.screen_table[start:stop], bias)  # (sessions, block)
            groups = (stop - start) // SCREEN_GROUP_ITEMS
            whole = groups * SCREEN_GROUP_ITEMS
            if whole:
                found.append(_candidates_of_groups(scores[:, :whole], groups, start + 1, candidates))
            if whole < stop - start:
                index = torch.arange(start + whole + 1, stop + 1, device=scores.device)
                found.append((scores[:, whole:].float(), index.expand(scores.shape[0], -1)))
        rough, place = torch.topk(torch.cat([scores for scores, _ in found], dim=1), candidates)
        index = torch.cat([index for _, index in found], dim=1).gather(1, place)  # (sessions, candidates)
        exact = (F.embedding(index, table) * states[:, None, :]).sum(dim=2) + allowed[index - 1]
        best = _without(_keys(exact, index), excluded, k)
        proven = self._proven(states, rounded, rough[:, -1], _from_keys(best)[0][:, -1])
        unproven = torch.nonzero(~proven).squeeze(1)
        again = self._exact(states[unproven], k, excluded[unproven], allowed)
        return best.index_copy(0, unproven, again)

    def _proven(self, states: Tensor, rounded: Tensor, last_rough: Tensor, last_exact: Tensor) -> Tensor:
        """Whether every item that is no candidate scores below the list, bool [sessions].

        With x and e a state and an item row, x' and e' rounded: |x.e - x'.e'| <= |x - x'| |e'| + |x| |e - e'|, the
        product itself errs by at most d 2^-23 |x'| |e'| when it sums in fp32, and its result is rounded to bfloat16
        (8 bits, so by at most 2^-8 of itself).

        Args:
            last_rough: bfloat16 score of the last candidate, float32 [sessions]: no other item has more.
            last_exact: fp32 score of the last item of the list, float32 [sessions].
        """
        kept, lost = self.screen_norms[0], self.screen_norms[1]
        norm = states.norm(dim=1)
        summing = 4 * states.shape[1] * 2.0**-23 * norm * kept
        bound = (states - rounded.float()).norm(dim=1) * kept + norm * lost + summing + last_rough.abs() * 2.0**-8
        # A last candidate of -inf means that every allowed item is a candidate.
        return (last_rough + bound < last_exact) | (last_rough == -_INFINITY)


def _best_of_groups(scores: Tensor, first: int, candidates: int) -> Tensor:
    """Keys of the best items of a block, int64 [sessions, min(candidates, groups) * GROUP_ITEMS].

    Args:
        scores: float32 [sessions, groups * GROUP_ITEMS].
        first: the index of the block's first item.
        candidates: how many of the best items must be among them.
    """
    groups = scores.shape[1] // GROUP_ITEMS
    grouped = scores.unflatten(1, (groups, GROUP_ITEMS))
    order = torch.arange(groups, device=scores.device)
    best, _ = torch.topk(_keys(grouped.amax(dim=2), order), torch.sym_min(candidates, groups))
    group = _LOW - (best & _LOW)  # (sessions, candidates)
    rows = torch.arange(scores.shape[0], device=scores.device)[:, None]
    chosen = grouped[rows, group]  # (sessions, candidates, GROUP_ITEMS)
    index = group[:, :, None] * GROUP_ITEMS + torch.arange(first, first + GROUP_ITEMS, device=scores.device)
    return _keys(chosen, index).flatten(1)


def _candidates_of_groups(scores: Tensor, groups: int, first: int, candidates: int) -> tuple[Tensor, Tensor]:
    """Scores (float32) and indices (int64) of the best items of a block, [sessions, min(candidates, groups) * size].

    A group takes every `groups`-th item, not neighbours: then its maximum is taken across rows of memory, which a CPU
    does six times faster in bfloat16. Order among equals does not matter here.
    """
    grouped = scores.unflatten(1, (SCREEN_GROUP_ITEMS, groups))  # (sessions, SCREEN_GROUP_ITEMS, groups)
    _, group = torch.topk(grouped.amax(dim=1).float(), torch.sym_min(candidates, groups))  # (sessions, candidates)
    member = torch.arange(SCREEN_GROUP_ITEMS, device=scores.device)
    place = group[:, :, None] + groups * member  # (sessions, candidates, SCREEN_GROUP_ITEMS)
    place = place.flatten(1)
    return scores.gather(1, place).float(), place + first


def _without(keys: Tensor, excluded: Tensor, k: int) -> Tensor:
    """The k best of some keys when each session's excluded items come last, with the score -inf."""
    _, index = _from_keys(keys)
    is_excluded = (index[:, :, None] == excluded[:, None, :]).any(dim=2)
    lowest = _keys(torch.full_like(index, -_INFINITY, dtype=torch.float32), index)
    best, _ = torch.topk(torch.where(is_excluded, lowest, keys), k)
    return best


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
