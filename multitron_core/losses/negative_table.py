"""The sampled negatives of a batch as columns that all steps share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class NegativeTable(NamedTuple):
    """`negatives.Negatives` as tensors on the device of the step; fields as there, `absent` = `batch_copies` == 0.

    batch_copies float [sessions, b], uniform_copies float [u], absent bool [sessions, b], session_of_step int64 [n],
    targets int64 [n]; `filling` bool [u] are columns that nobody drew and that only fill up, None where there are none.
    `correction` float [b + u] is what the logit of each column is lowered by, finite; None lowers none.
    """

    batch_copies: Tensor
    uniform_copies: Tensor
    absent: Tensor
    session_of_step: Tensor
    targets: Tensor
    filling: Tensor | None = None
    correction: Tensor | None = None


def log_copies(columns: Tensor, negatives: NegativeTable, kept: int) -> Tensor:
    """log of how often each kept column counts, float [n, columns kept]; -inf beyond the first `kept` draws.

    Args:
        columns: int64 [n, columns kept], the hardest first.
        negatives: which columns each session drew, and how often.
        kept: draws that count a step.
    """
    b = negatives.batch_copies.shape[1]
    copies = negatives.batch_copies[negatives.session_of_step[:, None], columns.clamp(max=b - 1)]
    if len(negatives.uniform_copies):
        of_uniform = negatives.uniform_copies[(columns - b).clamp(min=0)]
        copies = torch.where(columns < b, copies, of_uniform)
    before = copies.cumsum(dim=1) - copies
    return torch.minimum(copies, (kept - before).clamp(min=0)).log()


def mask_not_drawn(logits: Tensor, negatives: NegativeTable, block: slice | Tensor, mask_targets: bool) -> None:
    """Put -inf, in place, where a session did not draw a column and, if asked, where a step's own target stands.

    Args:
        logits: float [steps of the block, b + u].
        negatives: of the whole batch.
        block: which steps of the batch the rows are, a slice or int64 [rows].
        mask_targets: leave a step's own target out of its negatives.
    """
    b = negatives.absent.shape[1]
    logits[:, :b].masked_fill_(negatives.absent[negatives.session_of_step[block]], -torch.inf)
    if negatives.filling is not None:
        logits[:, b:].masked_fill_(negatives.filling, -torch.inf)
    if mask_targets:
        logits.scatter_(1, negatives.targets[block, None], -torch.inf)
