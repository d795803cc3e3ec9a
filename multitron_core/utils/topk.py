"""Exact top-k of long rows of scores, on a CPU several times faster than `torch.topk`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CHUNK = 16
"""Columns that the search first replaces by their maximum."""


def top_k(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of each row and their columns, in descending order, as `torch.topk` gives.

    Equal values may come in another order.

    Args:
        logits: float [n, c].
        k: at most c.

    Returns:
        [n, k] values, of the dtype of the logits, and int64 columns.
    """
    passing = passing_columns(logits, k, torch.zeros(len(logits)))
    if passing is None:
        values, columns = logits.topk(k, dim=1)
        return values, columns
    counts, columns = passing
    rows = torch.repeat_interleave(counts)
    return top_k_of_rows(logits[rows, columns], counts, columns, k)


def passing_columns(logits: Tensor, k: int, margin: Tensor) -> tuple[Tensor, Tensor] | None:
    """The columns of each row whose value is at least a bound of the row's k-th largest value, less a margin.

    The bound is the k-th largest of the maxima of 16 columns each. It is at most the k-th largest value, and few other
    values reach it. One pass takes the maxima, one compares. numpy has no bfloat16, so its bits are compared: those of
    positive numbers rank as the numbers do. Where a bound is not above 0, a pass first makes bits that rank correctly.

    Args:
        logits: float [n, c].
        k: at most c.
        margin: float32 [n]; the rounding of the bound itself is added.

    Returns:
        int64 [n], number of columns per row, at least k; int64, the columns, row after row. None where `torch.topk` is
        better: on a GPU, with few columns, and with many equal values.
    """
    n, c = logits.shape
    chunks = c // CHUNK
    few = chunks < 2 * k or k == 0 or n == 0
    if few or logits.device.type != "cpu" or logits.dtype not in (torch.float32, torch.bfloat16):
        return None
    if logits.dtype == torch.float32:
        bound = _bound(logits, k, margin)
        passing = logits.numpy() >= bound.numpy()[:, None]
    else:
        bits = logits.view(torch.int16)
        if not bool(((bound := _bound(bits, k, margin)) > 0.0).all()):
            bits = _ranking(bits)
            bound = _bound(bits, k, margin)
        passing = bits.numpy() >= _ranking(bound.view(torch.int16)).numpy()[:, None]
    row, column = np.divmod(np.flatnonzero(passing), c)
    counts = np.bincount(row, minlength=n)
    if counts.min() < k or counts.max() > 8 * k:  # fewer if a logit is not a number
        return None
    return torch.from_numpy(counts), torch.from_numpy(column)


def _bound(logits: Tensor, k: int, margin: Tensor) -> Tensor:
    """The k-th largest of the chunk maxima of each row, less the margin and a rounding: [n].

    The logits are float32, and the bound too; or they are int16, bits of bfloat16 that rank correctly.
    """
    chunks = logits.shape[1] // CHUNK
    maxima = logits[:, : chunks * CHUNK].view(len(logits), CHUNK, chunks).amax(dim=1).numpy()
    bound = torch.from_numpy(np.partition(maxima, chunks - k, axis=1)[:, chunks - k])
    if bound.dtype == torch.int16:
        bound = _ranking(bound).view(torch.bfloat16)
    return (bound - margin - torch.finfo(bound.dtype).eps * bound.abs()).to(bound.dtype)


def _ranking(bits: Tensor) -> Tensor:
    """int16 that rank as the bfloat16 of these bits; applied twice, the bits again."""
    return (bits >> 15).bitwise_and_(torch.iinfo(torch.int16).max).bitwise_xor_(bits)


def top_k_of_rows(values: Tensor, counts: Tensor, columns: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of rows of different lengths, and their columns.

    Args:
        values: float [sum of counts], row after row.
        counts: int64 [n], number of values per row, at least k.
        columns: int64 [sum of counts], column of each value.
        k: number of values to keep.

    Returns:
        [n, k] values in descending order, and int64 columns.
    """
    n, width = len(counts), int(counts.max())
    starts = counts.cumsum(0) - counts
    cells = torch.arange(len(values)) + torch.repeat_interleave(torch.arange(n) * width - starts, counts)
    padded = values.new_full((n * width,), -torch.inf)
    padded[cells] = values
    best, order = padded.view(n, width).topk(k, dim=1)
    return best, columns[starts[:, None] + order]


def product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Write the matrix product a b to `out`: on a CPU with numpy, whose BLAS takes half of torch's time on AMD."""
    if a.device.type == "cpu":
        np.matmul(a.numpy(), b.numpy(), out=out.numpy())
    else:
        torch.matmul(a, b, out=out)
