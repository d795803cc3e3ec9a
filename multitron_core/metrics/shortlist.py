"""Shortlists: the columns that can be among the top k at many preferences, with a proof.

Between neighbouring preferences the state of a step moves little, and nearly along a line. The whole table is therefore
scored only at a few preferences, the anchors. Columns on an anchor's shortlist are scored exactly at every preference.
For all other columns an upper bound of the score is computed between each pair of anchors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from multitron_core.utils.topk import product, top_k

_ROUNDING = 1e-5  # relative to the product of the norms; exceeds float32 rounding of a product of some hundred terms


class Shortlist(NamedTuple):
    """Listed columns of each step with their scores at every preference, and a bound for all other columns.

    Args:
        columns: int64 [n, w], distinct and ascending; padded with -1 in front.
        scores: float [n, points, w]; -inf for padding.
        bound: float [n, points], upper bound of the scores of columns that are not listed; -inf if all are listed.
    """

    columns: Tensor
    scores: Tensor
    bound: Tensor

    def proven(self, k: int) -> Tensor:
        """Whether the top k of the whole table are listed, or all allowed columns: bool [n, points]."""
        return ((self.scores >= self.bound[..., None]).sum(dim=-1) >= k) | (self.bound == -torch.inf)


def shortlist(
    states: Tensor, anchors: Tensor, anchor_scores: Tensor, table: Tensor, size: int, always: Tensor | None = None
) -> Shortlist:
    """Compute the shortlist of each step.

    Between two anchors, state = (1 - t) left + t right + rest. By the Cauchy-Schwarz inequality, a column on neither
    shortlist scores at most (1 - t) (smallest listed score of left) + t (smallest listed score of right) +
    |rest| max |column|.

    Args:
        states: float32 [n, points, d] on a CPU, in the order of preferences along a line.
        anchors: int64, at least two ascending indices of `points`, including the first and the last.
        anchor_scores: float32 [n * anchors, c], scores of all columns at the anchors; -inf, at all anchors, for columns
            that are not allowed for a step.
        table: float32 [c, d].
        size: Number of columns that each anchor lists, at most c.
        always: int64 [n], one column per step that is listed in any case.
    """
    n = len(states)
    values, columns = top_k(anchor_scores, size)
    least = values[:, -1].view(n, -1)  # (n, anchors)
    columns = columns.masked_fill(values == -torch.inf, -1).view(n, -1)
    if always is not None:
        columns = torch.cat([columns, always[:, None]], dim=1)
    columns = _distinct(columns)
    scores = states.new_empty(n, states.shape[1], columns.shape[1])
    product(states, table[columns.clamp(min=0)].mT, out=scores)
    scores.masked_fill_(columns[:, None] < 0, -torch.inf)
    return Shortlist(columns, scores, _bound(states, anchors, least, table))


def _distinct(columns: Tensor) -> Tensor:
    """Distinct values of each row in ascending order, with -1 as padding in front."""
    ordered = columns.sort(dim=1).values
    repeated = ordered[:, 1:] == ordered[:, :-1]
    ordered[:, 1:].masked_fill_(repeated, -1)
    width = max(1, int((ordered >= 0).sum(dim=1).max()))
    return ordered.sort(dim=1).values[:, -width:]


def _bound(states: Tensor, anchors: Tensor, least: Tensor, table: Tensor) -> Tensor:
    """Upper bound of the scores of columns that no anchor lists, float [n, points].

    `least` is the smallest listed score at each anchor, float [n, anchors].
    """
    place = torch.searchsorted(anchors, torch.arange(states.shape[1]), right=True) - 1
    place = place.clamp(max=len(anchors) - 2)
    left, right = states[:, anchors[place]], states[:, anchors[place + 1]]
    line = right - left
    share = ((states - left) * line).sum(dim=-1) / line.square().sum(dim=-1).clamp(min=1e-30)
    share = share.clamp(0.0, 1.0)
    rest = (states - torch.lerp(left, right, share[..., None])).norm(dim=-1) + _ROUNDING * states.norm(dim=-1)
    all_listed = least[:, place] == -torch.inf
    bound = torch.lerp(least[:, place], least[:, place + 1], share) + rest * table.norm(dim=1).max()
    return bound.masked_fill_(all_listed, -torch.inf)
