"""The hardest negatives of each step: the k highest logits, found without gradient, then given one.

Only these reach the loss, so only they need a gradient: the backward pass reads k embeddings a step instead of
multiplying with the whole table (top-k sampling of TRON, arXiv 2307.14906).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 16  # columns whose maximum stands for them in the search
_BLOCK_CELLS = {"cpu": 1 << 22, "cuda": 1 << 28}  # logits held at a time; on a CPU 16 MiB, which the cache may hold


class NegativeTable(NamedTuple):
    """`negatives.Negatives` as tensors on the device of the step; fields as there, `absent` = `batch_copies` == 0.

    batch_copies float [sessions, b], uniform_copies float [u], absent bool [sessions, b], session_of_step int64 [n],
    targets int64 [n].
    """

    batch_copies: Tensor
    uniform_copies: Tensor
    absent: Tensor
    session_of_step: Tensor
    targets: Tensor


def hardest_logits(
    states: Tensor, table: Tensor, negatives: NegativeTable, *, kept: int, mask_targets: bool, search: torch.dtype
) -> Tensor:
    """Logits of the `kept` hardest negatives of each step, copies counted, with their gradient.

    Args:
        states: float [n, d].
        table: float [b + u, d], embeddings of the columns of `negatives`.
        negatives: which columns each session drew, and how often.
        kept: how many negatives reach the loss; an item drawn c times counts c times.
        mask_targets: leave a step's own target out of its negatives.
        search: dtype in which the columns are ranked; their logits are those of `states` in any case.

    Returns:
        float32 [n, min(kept, b + u)], falling by item; an item kept c times stands once with log(c) added, and -inf
        stands where there are no more negatives.
    """
    with torch.no_grad():
        values, columns = _search(states.detach(), table.detach(), negatives, kept, mask_targets, search)
        copies = log_copies(columns, negatives, kept)
    logits: Tensor = _Kept.apply(states, table, values, columns)
    return logits + copies


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


def leave_out(logits: Tensor, negatives: NegativeTable, block: slice, mask_targets: bool) -> None:
    """Put -inf, in place, where a session did not draw a column and, if asked, where a step's own target stands.

    Args:
        logits: float [steps of the block, b + u].
        negatives: of the whole batch.
        block: which steps of the batch the rows are.
        mask_targets: leave a step's own target out of its negatives.
    """
    b = negatives.absent.shape[1]
    logits[:, :b].masked_fill_(negatives.absent[negatives.session_of_step[block]], -torch.inf)
    if mask_targets:
        logits[torch.arange(len(logits), device=logits.device), negatives.targets[block]] = -torch.inf


class _Kept(torch.autograd.Function):
    """values[i, j] = states[i] . table[columns[i, j]], already computed; the gradients are those of that product."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, values: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(states, table, columns)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        states, table, columns = ctx.saved_tensors
        gradient = gradients[0].to(states.dtype)  # (n, k)
        k = columns.shape[1]
        of_states = F.embedding_bag(columns, table.to(states.dtype), per_sample_weights=gradient, mode="sum")
        # The other side is the same sum over the transposed list: the steps that kept a column, column after column.
        column, order = columns.flatten().sort(stable=True)
        counts = torch.bincount(column, minlength=len(table))
        of_table = F.embedding_bag(
            order // k,
            states,
            counts.cumsum(0) - counts,
            per_sample_weights=gradient.flatten()[order],
            mode="sum",
        )
        return of_states, of_table.to(table.dtype), None, None


def _search(
    states: Tensor, table: Tensor, negatives: NegativeTable, kept: int, mask_targets: bool, search: torch.dtype
) -> tuple[Tensor, Tensor]:
    """float32 values and int64 columns [n, k] of the highest logits, falling."""
    n, columns = len(states), len(table)
    k = min(kept, columns)
    # A coarser dtype ranks: a few more are taken than are kept, and the exact logits decide among them.
    exact = search == states.dtype
    wide = k if exact else min(k + k // 4, columns)
    ranked_states, ranked_table = states.to(search), table.to(search).T
    rows = min(n, max(1, _BLOCK_CELLS[states.device.type] // columns))
    buffer = ranked_states.new_empty(rows, columns)  # one for all blocks: new memory costs as much as half the product
    values, found = [], []
    for first in range(0, n, rows):
        block = slice(first, min(first + rows, n))
        part = ranked_states[block]
        logits = torch.mm(part, ranked_table, out=buffer[: len(part)])  # (rows, b + u)
        leave_out(logits, negatives, block, mask_targets)
        block_values, block_columns = largest(logits, wide)
        if not exact:
            exact_values = _products(states[block], table, block_columns)
            exact_values.masked_fill_(block_values == -torch.inf, -torch.inf)
            block_values, order = exact_values.topk(k, dim=1)
            block_columns = block_columns.gather(1, order)
        values.append(block_values.float())
        found.append(block_columns)
    return torch.cat(values), torch.cat(found)


def _products(states: Tensor, table: Tensor, columns: Tensor) -> Tensor:
    """states[i] . table[columns[i, j]], [n, k]: by small blocks, so that what is gathered stays in the cache."""
    n, k = columns.shape
    products = states.new_empty(n, k)
    rows = 32 if states.device.type == "cpu" else n
    for first in range(0, n, max(1, rows)):
        block = slice(first, min(first + rows, n))
        gathered = table.index_select(0, columns[block].flatten()).unflatten(0, (-1, k))  # (rows, k, d)
        products[block] = torch.bmm(gathered, states[block, :, None]).squeeze(2)
    return products


def largest(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row and their columns, falling: what `torch.topk` gives, up to the order of equal values.

    On a CPU, rows of thousands of columns go through a threshold: the k-th largest of the maxima of 16 columns each is
    at most the k-th largest value, and few other values reach it. One pass takes the maxima, one compares, and only
    the hundred-odd that pass are sorted.

    Args:
        logits: float [n, c].
        k: at most c.

    Returns:
        [n, k] values of the logits' dtype and int64 columns.
    """
    n, c = logits.shape
    chunks = c // _CHUNK
    if logits.device.type != "cpu" or chunks < 2 * k or k == 0 or n == 0:
        return _plain(logits, k)
    maxima = logits[:, : chunks * _CHUNK].view(n, _CHUNK, chunks).amax(dim=1).float().numpy()
    threshold = torch.from_numpy(np.partition(maxima, chunks - k, axis=1)[:, chunks - k]).to(logits.dtype)
    passed = np.flatnonzero((logits >= threshold[:, None]).numpy())
    counts = np.bincount(passed // c, minlength=n)
    width = int(counts.max())
    if width > 8 * k or counts.min() < k:  # many equal values, or few finite ones
        return _plain(logits, k)
    row = np.repeat(np.arange(n), counts)
    cells = torch.from_numpy(row * width + np.arange(len(passed)) - np.repeat(np.cumsum(counts) - counts, counts))
    values = logits.new_full((n * width,), -torch.inf)
    values[cells] = logits.flatten()[torch.from_numpy(passed)]
    columns = torch.zeros(n * width, dtype=torch.int64)
    columns[cells] = torch.from_numpy(passed - row * c)
    best, order = values.view(n, width).topk(k, dim=1)
    return best, columns.view(n, width).gather(1, order)


def _plain(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, columns = logits.topk(k, dim=1)
    return values, columns
