"""Shortlists: the few columns that can be among the best at any of many preferences, with proof.

From one preference to the next a state moves little, and nearly on a line. So the whole table is scored at a few
preferences alone, the anchors. What is not among an anchor's best can be bounded at every preference between two of
them, and what is among them is scored exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from multitron_core.utils.topk import product, top_k

_ROUNDING = 1e-5  # of the norms' product: far more than float32 can move a product of some hundred numbers


class Shortlist(NamedTuple):
    """Columns of each step, their scores at every preference, and what every other column stays below.

    Args:
        columns: int64 [n, w], rising, each once; -1 where a step has fewer.
        scores: float [n, points, w]; -inf where a step has fewer.
        bound: float [n, points]: no column that is not listed scores more; -inf where all are listed.
    """

    columns: Tensor
    scores: Tensor
    bound: Tensor

    def proven(self, k: int) -> Tensor:
        """Where the k best of the whole table are listed, or all that there are: bool [n, points]."""
        return ((self.scores >= self.bound[..., None]).sum(dim=-1) >= k) | (self.bound == -torch.inf)


def shortlist(
    states: Tensor, anchors: Tensor, anchor_scores: Tensor, table: Tensor, size: int, always: Tensor | None = None
) -> Shortlist:
    """The shortlist of each step.

    Between two anchors, state = (1 - t) left + t right + rest, so a column that neither lists scores at most
    (1 - t) (the least listed score of left) + t (that of right) + |rest| max |column|, by Cauchy and Schwarz.

    Args:
        states: float32 [n, points, d] on a CPU, along a line of preferences.
        anchors: int64, at least two places in `points`, rising, the first and the last place among them.
        anchor_scores: float32 [n * anchors, c], the anchors' scores of all columns; -inf where a step may not have
            one, at all anchors alike.
        table: float32 [c, d].
        size: columns that each anchor lists, at most c.
        always: int64 [n], a column of each step to list in any case.
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
    """Each row's distinct values in rising order, -1 (which does not count) in front."""
    ordered = columns.sort(dim=1).values
    again = ordered[:, 1:] == ordered[:, :-1]
    ordered[:, 1:].masked_fill_(again, -1)
    width = max(1, int((ordered >= 0).sum(dim=1).max()))
    return ordered.sort(dim=1).values[:, -width:]


def _bound(states: Tensor, anchors: Tensor, least: Tensor, table: Tensor) -> Tensor:
    """What a column that no anchor lists scores at most, float [n, points]."""
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
