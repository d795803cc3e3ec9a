"""The sampled negatives of a batch as columns that all steps share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from multitron_core.losses.negatives import Negatives


class NegativeTable(NamedTuple):
    """`negatives.Negatives` as tensors, for the steps of all or some sessions of a batch.

    b counts items of the batch, u items that were drawn uniformly only, n steps.

    Args:
        batch_copies: float [sessions, b], how often each session drew each item of the batch.
        uniform_copies: float [u], how often each item was drawn uniformly, the same for all sessions.
        absent: bool [sessions, b], `batch_copies` == 0.
        session_of_step: int64 [n].
        targets: int64 [n], column of each step's target, in [0, b).
        padding: bool [u], columns that only pad the table to a common size; None for a table without padding.
        correction: float [b + u], finite, subtracted from the logit of each column; None subtracts nothing.
    """

    batch_copies: Tensor
    uniform_copies: Tensor
    absent: Tensor
    session_of_step: Tensor
    targets: Tensor
    padding: Tensor | None = None
    correction: Tensor | None = None

    @classmethod
    def of(
        cls,
        negatives: Negatives,
        session_of_step: np.ndarray,
        *,
        sessions: slice = slice(None),
        steps: np.ndarray | slice = slice(None),
        correction: np.ndarray | None = None,
    ) -> NegativeTable:
        """The table of a batch, or of some of its sessions, on the CPU.

        Args:
            negatives: the negatives of the whole batch.
            session_of_step: int64 [n], session of each step among the chosen ones.
            sessions: the chosen sessions.
            steps: the steps of the chosen sessions: int64 [n], or a slice.
            correction: float [items + 1], subtracted from the logit of each item where it is a negative.
        """
        copies = torch.from_numpy(negatives.batch_copies[sessions])
        if correction is not None:
            correction = correction[np.concatenate([negatives.batch_items, negatives.uniform_items])]
        return cls(
            batch_copies=copies.float(),
            uniform_copies=torch.from_numpy(negatives.uniform_copies).float(),
            absent=copies == 0,
            session_of_step=torch.from_numpy(session_of_step),
            targets=torch.from_numpy(negatives.targets[steps]),
            correction=None if correction is None else torch.from_numpy(correction).float(),
        )

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> NegativeTable:
        """The same table with `change` of each of its tensors, for example a copy on another device."""
        return self._replace(**{name: change(each) for name, each in self._asdict().items() if each is not None})


def log_copies(columns: Tensor, negatives: NegativeTable, kept: int) -> Tensor:
    """Logarithm of how often each kept column counts, float [n, columns kept]; -inf beyond the first `kept` draws.

    Args:
        columns: int64 [n, columns kept], the hardest first.
        negatives: the columns that each session drew, and how often.
        kept: number of draws that count, per step.
    """
    b = negatives.batch_copies.shape[1]
    copies = negatives.batch_copies[negatives.session_of_step[:, None], columns.clamp(max=b - 1)]
    if len(negatives.uniform_copies):
        of_uniform = negatives.uniform_copies[(columns - b).clamp(min=0)]
        copies = torch.where(columns < b, copies, of_uniform)
    before = copies.cumsum(dim=1) - copies
    return torch.minimum(copies, (kept - before).clamp(min=0)).log()


def mask_not_drawn(logits: Tensor, negatives: NegativeTable, block: slice | Tensor, mask_targets: bool) -> None:
    """Write -inf, in place, to the columns that a session did not draw and, on request, to each step's own target.

    Args:
        logits: float [steps of the block, b + u].
        negatives: the table of the whole batch.
        block: steps of the batch that the rows are for, a slice or int64 [rows].
        mask_targets: exclude a step's own target from its negatives.
    """
    b = negatives.absent.shape[1]
    logits[:, :b].masked_fill_(negatives.absent[negatives.session_of_step[block]], -torch.inf)
    if negatives.padding is not None:
        logits[:, b:].masked_fill_(negatives.padding, -torch.inf)
    if mask_targets:
        logits.scatter_(1, negatives.targets[block, None], -torch.inf)
