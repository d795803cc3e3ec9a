"""The hardest negatives of each step: the k highest logits, found without gradient, then given one.

Only these reach the loss, so only they need a gradient: the backward pass reads k embeddings a step instead of
multiplying with the whole table (top-k sampling of TRON, arXiv 2307.14906).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from multitron_core.losses.negative_table import NegativeTable, log_copies, mask_not_drawn
from multitron_core.utils.topk import _CHUNK, _highest, _passing, top_k

_ALIGNMENT = 32  # rows of logits start at multiples; a float32 product into rows that start anywhere is slower
_BLOCK_CELLS = {"cpu": 1 << 22, "cuda": 1 << 28}  # logits held at a time; on a CPU 16 MiB, which the cache may hold


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
        stands where there are no more negatives. The correction is in the ranking as in the logits; targets have none.
    """
    with torch.no_grad():
        searched = _corrected(states.detach(), table.detach(), negatives.correction)
        values, columns = _search(*searched, negatives, kept, mask_targets, search)
        copies = log_copies(columns, negatives, kept)
    logits: Tensor = _Kept.apply(states, table, values, columns)
    return logits + copies


def _corrected(states: Tensor, table: Tensor, correction: Tensor | None) -> tuple[Tensor, Tensor]:
    """States and table whose products are the logits less the correction, as one dimension more.

    So every way of the search has it, the margin of a screen too. Seven more, of zeros, keep rows aligned: tensor cores
    multiply numbers of 16 bits by eights.
    """
    if correction is None:
        return states, table
    ones, column = states.new_full((len(states), 1), -1.0), correction[:, None].to(table.dtype)
    return F.pad(torch.cat([states, ones], dim=1), (0, 7)), F.pad(torch.cat([table, column], dim=1), (0, 7))


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
        of_table = F.embedding_bag(
            order // k,
            states,
            torch.searchsorted(column, torch.arange(len(table), device=column.device)),
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
    on_cpu = states.device.type == "cpu"
    if on_cpu and columns < 2 * _CHUNK * k:
        search = states.dtype  # so few are sorted at once
    screens = search != states.dtype
    ranked = states.to(search), table.to(search)
    margin = screen_margin(states, ranked[0], table, ranked[1]) if screens and on_cpu else None
    rows = min(n, max(1, _BLOCK_CELLS[states.device.type] // columns))
    buffers: dict[torch.dtype, Tensor] = {}  # for all blocks: new memory costs as much as half the product

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
            passing = _passing(logits_of(*ranked, block), k, margin[block])
            if passing is None:
                margin = None  # too many logits are too close to each other, and in the other blocks they will be
            else:
                best = _highest(_products(states[block], table, *passing), *passing, k)
        elif screens and not on_cpu:
            best = _screened_by_sorting(logits_of(*ranked, block), states[block], table, k)
        best = best or top_k(logits_of(states, table, block), k)
        values.append(best[0])
        found.append(best[1])
    return torch.cat(values), torch.cat(found)


def screen_margin(states: Tensor, ranked_states: Tensor, table: Tensor, ranked_table: Tensor) -> Tensor:
    """How far below the k-th largest logit of a screen the k largest exact ones may be found, float [n].

    Twice what the rounding of the factors can move a product, by the Cauchy-Schwarz inequality from how far each factor
    was moved, and what float32 loses in the sums. The rounding of the product itself is `_passing`'s.

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
    # A hundredth more than twice, for the norms themselves.
    return 2.02 * (states_off * longest + lengths * (table_off + sums * longest))


def _products(states: Tensor, table: Tensor, counts: Tensor, columns: Tensor) -> Tensor:
    """states[i] . table[column] for the columns of each state, `counts[i]` of them, one state's after the other's."""
    starts = F.pad(counts.cumsum(0), (1, 0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        wanted = torch.sparse_csr_tensor(
            starts, columns, states.new_zeros(len(columns)), (len(states), len(table)), check_invariants=False
        )
    return torch.sparse.sampled_addmm(wanted, states, table.T, beta=0.0).values()


def _screened_by_sorting(logits: Tensor, states: Tensor, table: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Exact logits decide among a quarter more than are kept: for a GPU, which sorts whole rows."""
    screened, columns = logits.topk(min(k + k // 4, logits.shape[1]), dim=1)
    exact = torch.bmm(table[columns], states[:, :, None]).squeeze(2)  # (n, columns)
    values, order = exact.masked_fill(screened == -torch.inf, -torch.inf).topk(k, dim=1)
    return values, columns.gather(1, order)
