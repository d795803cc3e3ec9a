"""The scoring program: one torch module from clicks and pi to the k best items.

Order: the k best items are exact in fp32, and ties are broken by the smaller item index. Scores become 64-bit keys
with the score in the upper half and the complement of the index in the lower half. Keys have this order and never tie.

Memory: the catalogue is scored in blocks, so memory is bounded by sessions x block_items, whatever the catalogue.

Selection: selecting k of n scores costs about as much as computing them. A block is therefore searched in two steps:
the maxima of groups of adjacent items, then the items of the k best groups. Groups are ordered by (maximum descending,
position ascending). The first k groups contain the k best items: every item outside them comes after the best item of
each of these k groups.

Screening: with a screen, the whole catalogue is scored in int8 or bfloat16, and more than k candidates are scored again
in fp32. A bound on the rounding error then proves, per session, that no other item belongs to its k best. Sessions
without this proof (near ties at the end of the list) are scored in fp32 throughout. The result is the same fp32 list.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multitron_core.model.transformer import MultiTRON

BLOCK_ITEMS = 262_144
"""Default number of items scored per matrix product."""
GROUP_ITEMS = 64
"""Adjacent items per group in the fp32 search."""
SCREEN_GROUP = 8
"""Items per group in the screened search."""
SCREEN_TOPK = 2048
"""Number of scores below which the screened search uses topk without groups."""
COARSE = 0.02
"""Rounding error, relative to the norm of an item, above which int8 leaves many lists unproven."""
SCREEN_SLACK, LARGE_SLACK = 52, 120
"""Candidates beyond three times k plus the exclusions, for a catalogue of one block and for a larger one. They are
enough to prove almost every list and few enough to score again. Scores at the end of a list are closer together for
longer lists and larger catalogues. Scoring a large catalogue in fp32 for a few lists costs as much as screening it for
a whole request."""

_LOW = 0xFFFFFFFF  # lower half of a key
_INFINITY = float("inf")
_EXCLUDED = -(1 << 30)  # far below any sum of up to 30,000 int8 products


@dataclass(frozen=True)
class Screen:
    """The item table in low precision, with bounds of its rounding error.

    A row of the fp32 table is approximately `scale` times the row of `table`. All items share one scale, so sums of
    low-precision products have the order of the scores and need no extra pass over the catalogue.

    Args:
        table: int8 or bfloat16 [items, d]; the item of index i is at i - 1.
        scale: float32 [1]; 1 for bfloat16.
        norms: float32 [2]: the largest Euclidean norm of a row of scale * `table`, and of a row of its difference from
            the fp32 table.
    """

    table: Tensor
    scale: Tensor
    norms: Tensor

    @staticmethod
    def of(table: Tensor, dtype: torch.dtype = torch.int8) -> Screen:
        """The screen of an item table.

        Args:
            table: float32 [items, d].
            dtype: torch.int8 or torch.bfloat16.
        """
        parts = table.split(BLOCK_ITEMS)
        largest = torch.stack([part.abs().max() for part in parts]).max()[None]
        rounded, norms = torch.empty(table.shape, dtype=dtype), torch.zeros(2)
        for part, target in zip(parts, rounded.split(BLOCK_ITEMS), strict=True):
            low_precision, scale = _round(part, largest, dtype)
            target.copy_(low_precision)
            kept = target.float() * scale
            norms = torch.maximum(norms, torch.stack([kept.norm(dim=1).max(), (part - kept).norm(dim=1).max()]))
        return Screen(rounded, scale, norms)


def screen_for(table: Tensor, *, on_gpu: bool) -> Screen:
    """The fastest usable screen of an item table.

    It is int8 on a CPU, and bfloat16 on a GPU. It is also bfloat16 where a few large entries of the table make int8
    too coarse.

    Args:
        table: float32 [items, d].
        on_gpu: whether the screen will run on a GPU.
    """
    if not on_gpu:
        screen = Screen.of(table)
        if screen.norms[1] <= COARSE * table.norm() / len(table) ** 0.5:
            return screen
    return Screen.of(table, torch.bfloat16)


def _round(numbers: Tensor, largest: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Round numbers to `dtype`.

    Args:
        numbers: float32, with absolute values of at most `largest`.
        largest: float32, broadcastable to `numbers`.

    Returns:
        The rounded numbers, and the factor that restores their magnitude, float32 in the shape of `largest`.
    """
    if dtype != torch.int8:
        return numbers.to(dtype), torch.ones_like(largest)
    scale = (largest / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return (numbers / scale).round().to(dtype), scale


class ScoringProgram(nn.Module):
    """Computes the k best items of each session, with their scores.

    Args:
        model: the trained model, in evaluation mode.
        screen: screen of the model's item table; None scores in fp32 throughout.
        block_items: items scored per matrix product; bounds memory.
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
        """Score the catalogue and select the best items.

        Args:
            items: int64 [sessions, steps], 1-based indices, 0 after the end of a session.
            lengths: int64 [sessions], clicks per session, >= 1.
            pi: preferences, float32 [sessions, objectives].
            k: items per list, at most the items of the vocabulary.
            excluded: int64 [sessions, width >= 1], distinct indices that the session's list must not contain, 0 for
                none.
            allowed: float32 [items], 0 for items that lists may contain and -inf for the others.

        Returns:
            Item indices int32 [sessions, k] (1-based) and scores float32 [sessions, k], best first. Where fewer than k
            items remain, the other places have the score -inf.
        """
        states = self.model.last_states(items, lengths, pi)  # (sessions, d)
        best = (
            self._screened(states, k, excluded, allowed) if self.screened else self._exact(states, k, excluded, allowed)
        )
        scores, index = from_keys(best)
        return index.to(torch.int32), scores

    def _exact(self, states: Tensor, k: int, excluded: Tensor, allowed: Tensor) -> Tensor:
        """Keys of the lists, int64 [sessions, k], by scoring the whole catalogue in fp32."""
        table = self.model.item_embedding.weight
        count = table.shape[0] - 1
        candidates = torch.sym_min(k + excluded.shape[1], count)  # at least k of these are not excluded
        keys = []
        for start in range(0, count, self.block_items):
            stop = min(start + self.block_items, count)
            scores = torch.addmm(allowed[start:stop], states, table[start + 1 : stop + 1].T)  # (sessions, block)
            grouped = (stop - start) // GROUP_ITEMS * GROUP_ITEMS
            if grouped:
                keys.append(_best_of_groups(scores[:, :grouped], start + 1, candidates))
            if grouped < stop - start:  # the last items do not fill a group
                rest = torch.arange(start + grouped + 1, stop + 1, device=scores.device)
                keys.append(to_keys(scores[:, grouped:], rest))
        best, _ = torch.topk(torch.cat(keys, dim=1), candidates)
        return _best_not_excluded(best, excluded, k)

    def _screened(self, states: Tensor, k: int, excluded: Tensor, allowed: Tensor) -> Tensor:
        """The keys of `_exact`, by scoring only the candidates of the screen in fp32."""
        table = self.model.item_embedding.weight
        count = table.shape[0] - 1
        slack = SCREEN_SLACK if count <= BLOCK_ITEMS else LARGE_SLACK
        candidates = torch.sym_min(3 * k + excluded.shape[1] + slack, count)
        rounded, scale = _round(states, states.abs().amax(dim=1, keepdim=True), self.screen_table.dtype)
        found = []
        for start in range(0, count, self.block_items):
            stop = min(start + self.block_items, count)
            scores = _product(self.screen_table[start:stop], rounded)  # (block, sessions)
            _exclude(scores, allowed[start:stop] < 0)
            position = _largest(scores, torch.sym_min(candidates, stop - start))
            found.append((scores.T.gather(1, position), position + (start + 1)))
        rough, order = torch.topk(torch.cat([scores for scores, _ in found], dim=1), candidates, sorted=False)
        index = torch.cat([index for _, index in found], dim=1).gather(1, order)  # (sessions, candidates)
        exact = F.embedding(index, table).mul_(states[:, None, :]).sum(dim=2) + allowed[index - 1]
        best = _best_not_excluded(to_keys(exact, index), excluded, k)
        last = rough.amin(dim=1)
        proven = self.proven(
            states,
            rounded.float() * scale,
            torch.where(last > _EXCLUDED / 2, last * scale[:, 0] * self.screen_scale, -_INFINITY),
            from_keys(best)[0][:, -1],
        )
        unproven = torch.nonzero(~proven).squeeze(1)
        again = self._exact(states[unproven], k, excluded[unproven], allowed)
        return best.index_copy(0, unproven, again)

    def proven(self, states: Tensor, rounded: Tensor, last_rough: Tensor, last_exact: Tensor) -> Tensor:
        """Whether every item outside the candidates certainly scores below the last item of the list.

        For a state x and an item row e, and their rounded values x' and e':
        |x.e - x'.e'| <= |x - x'| |e'| + |x| |e - e'|. A sum of products in fp32 has an error of at most
        d 2^-23 |x'| |e'|. The low-precision score is either a bfloat16 number, with an error of at most 2^-8 of its
        value (8 bits), or a sum of int8 products, which is exact until it is scaled in fp32.

        Args:
            states: float32 [sessions, d].
            rounded: the rounded states, float32 [sessions, d].
            last_rough: low-precision score of the last candidate, float32 [sessions]; no item outside the candidates
                has a larger one.
            last_exact: fp32 score of the last item of the list, float32 [sessions].

        Returns:
            bool [sessions].
        """
        kept, lost = self.screen_norms[0], self.screen_norms[1]
        norm = states.norm(dim=1)
        summing = 4 * states.shape[1] * 2.0**-23 * norm * kept
        storing = last_rough.abs() * 2.0 ** (-20 if self.screen_table.dtype == torch.int8 else -8)
        bound = (states - rounded).norm(dim=1) * kept + norm * lost + summing + storing
        # If the last candidate has -inf, every allowed item is a candidate.
        return (last_rough + bound < last_exact) | (last_rough == -_INFINITY)


def _product(table: Tensor, states: Tensor) -> Tensor:
    """Low-precision scores, [items, sessions]: int32 from int8, bfloat16 from bfloat16.

    Items are the first dimension: a CPU then reads the table in its memory layout and does not repack it per request.
    """
    return torch._int_mm(table, states.T) if table.dtype == torch.int8 else table @ states.T


def _exclude(scores: Tensor, excluded: Tensor) -> None:
    """Lower the scores of excluded items far below the others, in place.

    Adding to all rows takes half the time of a masked write. Where no item is excluded, no row is written.

    Args:
        scores: int32 or bfloat16 [items, sessions].
        excluded: bool [items].
    """
    some = excluded.any().to(torch.int64).item()
    torch._check(some >= 0)  # torch.export cannot derive the range of this number
    torch._check(some <= 1)
    rows = some * scores.shape[0]
    scores[:rows].add_(torch.where(excluded, _EXCLUDED, 0).to(scores.dtype)[:rows, None])


def _largest(scores: Tensor, count: int) -> Tensor:
    """Row numbers of the `count` largest scores of each column, int64 [columns, count], in any order.

    The search takes the maxima of groups first, then the members of the best groups. A group consists of every
    `groups`-th row instead of adjacent rows. Its maximum is then taken across rows of memory, which a CPU does several
    times faster.
    """
    height, by_session = scores.shape[0], scores.T
    if height < SCREEN_TOPK:
        _, position = torch.topk(by_session, count, sorted=False)
        return position
    groups = height // SCREEN_GROUP
    maxima = scores[: groups * SCREEN_GROUP].unflatten(0, (SCREEN_GROUP, groups)).amax(dim=0)  # (groups, columns)
    group = _largest(maxima, torch.sym_min(count, groups))
    member = torch.arange(SCREEN_GROUP, device=scores.device)
    rest = torch.arange(groups * SCREEN_GROUP, height, device=scores.device)  # the last rows do not fill a group
    position = torch.cat([(group[:, :, None] + groups * member).flatten(1), rest.expand(scores.shape[1], -1)], dim=1)
    _, order = torch.topk(by_session.gather(1, position), count, sorted=False)
    return position.gather(1, order)


def _best_of_groups(scores: Tensor, first: int, candidates: int) -> Tensor:
    """Keys of the items of a block's best groups, int64 [sessions, min(candidates, groups) * GROUP_ITEMS].

    Args:
        scores: float32 [sessions, groups * GROUP_ITEMS].
        first: index of the first item of the block.
        candidates: number of best items that the result must contain.
    """
    groups = scores.shape[1] // GROUP_ITEMS
    grouped = scores.unflatten(1, (groups, GROUP_ITEMS))
    order = torch.arange(groups, device=scores.device)
    best, _ = torch.topk(to_keys(grouped.amax(dim=2), order), torch.sym_min(candidates, groups))
    group = _LOW - (best & _LOW)  # (sessions, candidates)
    rows = torch.arange(scores.shape[0], device=scores.device)[:, None]
    chosen = grouped[rows, group]  # (sessions, candidates, GROUP_ITEMS)
    index = group[:, :, None] * GROUP_ITEMS + torch.arange(first, first + GROUP_ITEMS, device=scores.device)
    return to_keys(chosen, index).flatten(1)


def _best_not_excluded(keys: Tensor, excluded: Tensor, k: int) -> Tensor:
    """The k largest keys per session, int64 [sessions, k]; excluded items come last, with the score -inf.

    Args:
        keys: int64 [sessions, candidates].
        excluded: int64 [sessions, width], item indices, 0 for none.
    """
    _, index = from_keys(keys)
    is_excluded = (index[:, :, None] == excluded[:, None, :]).any(dim=2)
    lowest = to_keys(torch.full_like(index, -_INFINITY, dtype=torch.float32), index)
    best, _ = torch.topk(torch.where(is_excluded, lowest, keys), k)
    return best


def to_keys(scores: Tensor, index: Tensor) -> Tensor:
    """Keys whose descending order is (score descending, index ascending).

    The bits of a float order like integers after the lower 31 bits of negative numbers are flipped. Adding 0.0 turns
    -0.0 into 0.0.

    Args:
        scores: float32, without NaN.
        index: int64 from 0 to 2^32 - 1, broadcastable to `scores`.

    Returns:
        int64 in the shape of `scores`.
    """
    bits = (scores + 0.0).view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(torch.int64) << 32) | (_LOW - index)


def from_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (float32) and indices (int64) of the keys of `to_keys`, in the shape of `keys`."""
    ordered = (keys >> 32).to(torch.int32)
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    return bits.view(torch.float32), _LOW - (keys & _LOW)
