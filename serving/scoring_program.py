"""The scoring program: from clicks and pi to the k best items, all of it inside one torch module.

The catalogue is scored in blocks, so that memory is bounded by sessions x block_items and never by the catalogue.
The k best items are exact in fp32 and ties are broken by the smaller item index: scores are turned into 64-bit keys
(score in the upper half, complement of the index in the lower), which order as wanted and never tie.

Selecting k of n scores costs about as much as computing them, so a block is searched in two steps: the maxima of
groups of items, then the items of the k best groups. Of groups of neighbours ordered by (maximum falling, place
rising) the first k hold the k best items: an item outside them is preceded by the best item of each of those k groups.

With a screen, the whole catalogue is scored in int8 or bfloat16, somewhat more than k candidates are scored again in
fp32, and a bound on the rounding proves for each session that no other item can be among its k best. The sessions for
which it does not prove it (near ties at the end of the list) are scored in fp32 throughout. The result is the same
fp32 list.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multitron_core.model.transformer import MultiTRON

BLOCK_ITEMS = 262_144
GROUP_ITEMS = 64
SCREEN_GROUP = 8
SCREEN_TOPK = 2048
"""Scores that are few enough for topk alone, without groups."""
COARSE = 0.02
"""Loss of rounding, relative to the norm of an item, from which int8 would leave many lists unproven."""
SCREEN_SLACK, LARGE_SLACK = 52, 120
"""Candidates beyond three times the list and the exclusions, for a catalogue of one block and for a larger one: enough
that almost every list is proven, few enough to score again. The scores at the end of a list lie the closer, the longer
it is and the more items there are; and to score a large catalogue in fp32 for a few lists costs as much as the screen
does for a whole request."""

_LOW = 0xFFFFFFFF  # the lower half of a key
_INFINITY = float("inf")
_BARRED = -(1 << 30)  # far below any sum of int8 products, for up to 30,000 of them


@dataclass(frozen=True)
class Screen:
    """The item table in few bits and what bounds its rounding.

    A row of the fp32 table is about `scale` times the row of `table`. One scale for all items, so that the sums of
    products order as the scores do and need no pass of their own over the catalogue.

    Args:
        table: int8 or bfloat16 [items, d], the item of index i at i - 1.
        scale: float32 [1]; 1 for bfloat16.
        norms: float32 [2], the largest Euclidean norm of a row of scale * `table`, and of its difference from the fp32
            table.
    """

    table: Tensor
    scale: Tensor
    norms: Tensor

    @staticmethod
    def of(table: Tensor, dtype: torch.dtype = torch.int8) -> Screen:
        """The screen of an item table, float32 [items, d]."""
        parts = table.split(BLOCK_ITEMS)
        largest = torch.stack([part.abs().max() for part in parts]).max()[None]
        rounded, norms = torch.empty(table.shape, dtype=dtype), torch.zeros(2)
        for part, target in zip(parts, rounded.split(BLOCK_ITEMS), strict=True):
            few_bits, scale = _round(part, largest, dtype)
            target.copy_(few_bits)
            kept = target.float() * scale
            norms = torch.maximum(norms, torch.stack([kept.norm(dim=1).max(), (part - kept).norm(dim=1).max()]))
        return Screen(rounded, scale, norms)


def screen_for(table: Tensor, *, on_gpu: bool) -> Screen:
    """The screen that costs least: int8 on a CPU, unless some entries of the table dwarf the others; else bfloat16."""
    if not on_gpu:
        screen = Screen.of(table)
        if screen.norms[1] <= COARSE * table.norm() / len(table) ** 0.5:
            return screen
    return Screen.of(table, torch.bfloat16)


def _round(numbers: Tensor, largest: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Numbers of at most `largest` (float32) in few bits, and what to multiply them by then (like `largest`)."""
    if dtype != torch.int8:
        return numbers.to(dtype), torch.ones_like(largest)
    scale = (largest / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return (numbers / scale).round().to(dtype), scale


class ScoringProgram(nn.Module):
    """The k best items of each session, with their scores.

    Args:
        model: the trained model, in evaluation mode.
        screen: of the model's item table; None scores in fp32 throughout.
        block_items: items scored at a time.
    """

    screen_table: Tensor
    screen_scale: Tensor
    screen_norms: Tensor

    def __init__(self, model: MultiTRON, *, screen: Screen | None = None, block_items: int = BLOCK_ITEMS) -> None:
        super().__init__()
        self.model = model
        self.block_items = block_items
        self.screened = screen is not None
        if screen is not None:
            self.register_buffer("screen_table", screen.table)
            self.register_buffer("screen_scale", screen.scale)
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
        """The same keys, from fp32 scores of the candidates that the rounded scores leave."""
        table = self.model.item_embedding.weight
        count = table.shape[0] - 1
        slack = SCREEN_SLACK if count <= BLOCK_ITEMS else LARGE_SLACK
        candidates = torch.sym_min(3 * k + excluded.shape[1] + slack, count)
        rounded, scale = _round(states, states.abs().amax(dim=1, keepdim=True), self.screen_table.dtype)
        found = []
        for start in range(0, count, self.block_items):
            stop = min(start + self.block_items, count)
            scores = _product(self.screen_table[start:stop], rounded)  # (block, sessions)
            _bar(scores, allowed[start:stop] < 0)
            place = _largest(scores, torch.sym_min(candidates, stop - start))
            found.append((scores.T.gather(1, place), place + (start + 1)))
        rough, order = torch.topk(torch.cat([scores for scores, _ in found], dim=1), candidates, sorted=False)
        index = torch.cat([index for _, index in found], dim=1).gather(1, order)  # (sessions, candidates)
        exact = F.embedding(index, table).mul_(states[:, None, :]).sum(dim=2) + allowed[index - 1]
        best = _without(_keys(exact, index), excluded, k)
        last = rough.amin(dim=1)
        proven = self._proven(
            states,
            rounded.float() * scale,
            torch.where(last > _BARRED / 2, last * scale[:, 0] * self.screen_scale, -_INFINITY),
            _from_keys(best)[0][:, -1],
        )
        unproven = torch.nonzero(~proven).squeeze(1)
        again = self._exact(states[unproven], k, excluded[unproven], allowed)
        return best.index_copy(0, unproven, again)

    def _proven(self, states: Tensor, rounded: Tensor, last_rough: Tensor, last_exact: Tensor) -> Tensor:
        """Whether every item that is no candidate scores below the list, bool [sessions].

        With x and e a state and an item row, x' and e' rounded: |x.e - x'.e'| <= |x - x'| |e'| + |x| |e - e'|. A sum
        of products in fp32 errs by at most d 2^-23 |x'| |e'|. The rounded score is a number in bfloat16 (8 bits, so it
        errs by at most 2^-8 of itself), or a sum of int8 products that is exact until it is scaled in fp32.

        Args:
            rounded: the rounded states, float32 [sessions, d].
            last_rough: rounded score of the last candidate, float32 [sessions]: no other item has more.
            last_exact: fp32 score of the last item of the list, float32 [sessions].
        """
        kept, lost = self.screen_norms[0], self.screen_norms[1]
        norm = states.norm(dim=1)
        summing = 4 * states.shape[1] * 2.0**-23 * norm * kept
        storing = last_rough.abs() * 2.0 ** (-20 if self.screen_table.dtype == torch.int8 else -8)
        bound = (states - rounded).norm(dim=1) * kept + norm * lost + summing + storing
        # A last candidate of -inf means that every allowed item is a candidate.
        return (last_rough + bound < last_exact) | (last_rough == -_INFINITY)


def _product(table: Tensor, states: Tensor) -> Tensor:
    """Rounded scores, [items, sessions]: int32 from int8, bfloat16 from bfloat16.

    Items come first, so that a CPU multiplies the table as it stands and need not pack it anew for each request.
    """
    return torch._int_mm(table, states.T) if table.dtype == torch.int8 else table @ states.T


def _bar(scores: Tensor, barred: Tensor) -> None:
    """Put the rows of barred items (bool [items]) far below the others, in place.

    To add to all rows takes half the time of writing to half of them; where nothing is barred, no row is touched.
    """
    some = barred.any().to(torch.int64).item()
    torch._check(some >= 0)  # torch.export knows nothing of the number
    torch._check(some <= 1)
    rows = some * scores.shape[0]
    scores[:rows].add_(torch.where(barred, _BARRED, 0).to(scores.dtype)[:rows, None])


def _largest(scores: Tensor, count: int) -> Tensor:
    """Places of the `count` largest of each column, int64 [columns, count]: the maxima of groups, then the best groups.

    A group takes every `groups`-th place, not neighbours: then its maximum is taken across rows of memory, which a CPU
    does several times faster. Order among equals does not matter here.
    """
    height, by_session = scores.shape[0], scores.T
    if height < SCREEN_TOPK:
        _, place = torch.topk(by_session, count, sorted=False)
        return place
    groups = height // SCREEN_GROUP
    maxima = scores[: groups * SCREEN_GROUP].unflatten(0, (SCREEN_GROUP, groups)).amax(dim=0)  # (groups, columns)
    group = _largest(maxima, torch.sym_min(count, groups))
    member = torch.arange(SCREEN_GROUP, device=scores.device)
    rest = torch.arange(groups * SCREEN_GROUP, height, device=scores.device)  # fewer than a group
    place = torch.cat([(group[:, :, None] + groups * member).flatten(1), rest.expand(scores.shape[1], -1)], dim=1)
    _, order = torch.topk(by_session.gather(1, place), count, sorted=False)
    return place.gather(1, order)


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
