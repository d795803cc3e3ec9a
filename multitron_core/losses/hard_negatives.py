"""The hardest negatives of each step: the k highest logits, searched without gradient, returned with it.

Only these reach the loss, so only they need a gradient: the backward pass reads k embeddings per step instead of
multiplying with the whole table (top-k sampling of TRON, arXiv 2307.14906).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from multitron_core.losses.negative_table import NegativeTable, log_copies, mask_not_drawn
from multitron_core.utils.topk import CHUNK, passing_columns, top_k, top_k_of_rows

_ALIGNMENT = 32  # rows of logits start at multiples of it; float32 products into unaligned rows are slower
BLOCK_CELLS = {"cpu": 1 << 22, "cuda": 1 << 28}
"""Logits computed at a time, by type of device; on a CPU 16 MiB, which may fit into the cache."""


def hardest_logits(
    states: Tensor, table: Tensor, negatives: NegativeTable, *, kept: int, mask_targets: bool, search: torch.dtype
) -> Tensor:
    """Logits of the `kept` hardest negatives of each step, copies counted, with their gradient.

    Args:
        states: float [n, d].
        table: float [b + u, d], embeddings of the columns of `negatives`.
        negatives: the columns that each session drew, and how often.
        kept: number of negatives that reach the loss; an item drawn c times counts c times.
        mask_targets: exclude a step's own target from its negatives.
        search: dtype in which the columns are ranked; the logits returned have the precision of `states` in any case.

    Returns:
        float32 [n, min(kept, b + u)], in descending order of the items' logits. An item kept c times is one entry with
        log(c) added; missing negatives are -inf. The correction changes both ranking and logits; targets have none.
    """
    with torch.no_grad():
        searched = _corrected(states.detach(), table.detach(), negatives.correction)
        values, columns = search_columns(*searched, negatives, kept, mask_targets, search)
        copies = log_copies(columns, negatives, kept)
    logits: Tensor = _Kept.apply(states, table, values, columns)
    return logits + copies


def _corrected(states: Tensor, table: Tensor, correction: Tensor | None) -> tuple[Tensor, Tensor]:
    """States and table with one more dimension, whose products are the logits less the correction.

    So all kinds of search include it, and the margin of a screen too. Padded to a multiple of 8 for tensor cores.
    """
    if correction is None:
        return states, table
    ones, column = states.new_full((len(states), 1), -1.0), correction[:, None].to(table.dtype)
    return F.pad(torch.cat([states, ones], dim=1), (0, 7)), F.pad(torch.cat([table, column], dim=1), (0, 7))


class _Kept(torch.autograd.Function):
    """values[i, j] = states[i] . table[columns[i, j]], computed before; the gradients are those of the product."""

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
        # The table's gradient is the same sum over the transposed list: the steps that kept each column.
        column, order = columns.flatten().sort(stable=True)
        of_table = F.embedding_bag(
            order // k,
            states,
            torch.searchsorted(column, torch.arange(len(table), device=column.device)),
            per_sample_weights=gradient.flatten()[order],
            mode="sum",
        )
        return of_states, of_table.to(table.dtype), None, None


def search_columns(
    states: Tensor, table: Tensor, negatives: NegativeTable, kept: int, mask_targets: bool, search: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The highest logits of each step, in descending order: float32 values and int64 columns, [n, k]."""
    n, columns = len(states), len(table)
    k = min(kept, columns)
    on_cpu = states.device.type == "cpu"
    if on_cpu and columns < 2 * CHUNK * k:
        search = states.dtype  # with so few columns, sorting is faster
    screens = search != states.dtype
    ranked = states.to(search), table.to(search)
    margin = screen_margin(states, ranked[0], table, ranked[1]) if screens and on_cpu else None
    rows = min(n, max(1, BLOCK_CELLS[states.device.type] // columns))
    buffers: dict[torch.dtype, Tensor] = {}  # shared by all blocks: allocation costs half as much as the product

    def logits_of(states: Tensor, table: Tensor, block: slice) -> Tensor:
        part = states[block]
        if states.dtype not in buffers:
            aligned = -(-columns // _ALIGNMENT) * _ALIGNMENT
            buffers[states.dtype] = states.new_empty(rows, aligned)[:, :columns]
        logits = torch.mm(part, table.T, out=buffers[states.dtype][: len(part)])  # (rows, b + u)
        mask_not_drawn(logits, negatives, block, mask_targets)
        return logits

    values, found = [], []
    for first in range(0, n, rows):
        block = slice(first, min(first + rows, n))
        best = None
        if margin is not None:
            passing = passing_columns(logits_of(*ranked, block), k, margin[block])
            if passing is None:
                margin = None  # too many logits are close to each other; the other blocks will be alike
            else:
                best = top_k_of_rows(_products(states[block], table, *passing), *passing, k)
        elif screens and not on_cpu:
            best = screened_by_sorting(logits_of(*ranked, block), states[block], table, k)
        best = best or top_k(logits_of(states, table, block), k)
        values.append(best[0])
        found.append(best[1])
    return torch.cat(values), torch.cat(found)


def screen_margin(states: Tensor, ranked_states: Tensor, table: Tensor, ranked_table: Tensor) -> Tensor:
    """The largest distance of the k largest exact logits below the k-th largest logit of a screen, float [n].

    It is twice the change of a product by the rounding of its factors, bounded by the Cauchy-Schwarz inequality, and
    the loss of float32 in the sums. The rounding of the product itself is that of `passing_columns`.

    Args:
        states: float [n, d].
        ranked_states: the same in the dtype of the screen.
        table: float [columns, d].
        ranked_table: the same in the dtype of the screen.
    """
    rounded = ranked_states.to(states.dtype)
    states_off, lengths = (states - rounded).norm(dim=1), rounded.norm(dim=1)
    table_off, longest = (table - ranked_table).norm(dim=1).max(), table.norm(dim=1).max()
    sums = states.shape[1] * torch.finfo(states.dtype).eps
    # 1 % more than twice, for the rounding of the norms.
    return 2.02 * (states_off * longest + lengths * (table_off + sums * longest))


def _products(states: Tensor, table: Tensor, counts: Tensor, columns: Tensor) -> Tensor:
    """states[i] . table[column] for `counts[i]` columns per state, state after state."""
    starts = F.pad(counts.cumsum(0), (1, 0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        wanted = torch.sparse_csr_tensor(
            starts, columns, states.new_zeros(len(columns)), (len(states), len(table)), check_invariants=False
        )
    return torch.sparse.sampled_addmm(wanted, states, table.T, beta=0.0).values()


def screened_by_sorting(logits: Tensor, states: Tensor, table: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest logits of each row, for a GPU: a quarter more are taken by sorting the screen, then ranked exactly.

    Args:
        logits: [n, columns] in the dtype of the screen; -inf excludes a column.
        states: float [n, d].
        table: float [columns, d].
        k: number of logits to keep.

    Returns:
        float [n, k] exact values in descending order, and int64 columns.
    """
    screened, columns = logits.topk(min(k + k // 4, logits.shape[1]), dim=1)
    exact = torch.bmm(table[columns], states[:, :, None]).squeeze(2)  # (n, columns)
    values, order = exact.masked_fill(screened == -torch.inf, -torch.inf).topk(k, dim=1)
    return values, columns.gather(1, order)
