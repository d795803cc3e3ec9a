"""Exact top-k of long rows of scores."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_CHUNK = 16  # columns whose maximum stands for them in the search


def top_k(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row and their columns, falling: what `torch.topk` gives, up to the order of equal values.

    Args:
        logits: float [n, c].
        k: at most c.

    Returns:
        [n, k] values of the logits' dtype and int64 columns.
    """
    passing = _passing(logits, k, torch.zeros(len(logits)))
    if passing is None:
        values, columns = logits.topk(k, dim=1)
        return values, columns
    counts, columns = passing
    rows = torch.repeat_interleave(counts)
    return _highest(logits[rows, columns], counts, columns, k)


def _passing(logits: Tensor, k: int, margin: Tensor) -> tuple[Tensor, Tensor] | None:
    """The columns of each row that are not below a bound of its k-th largest less the margin.

    The bound is the k-th largest of the maxima of 16 columns each: it is at most the k-th largest value, and few other
    values reach it. One pass takes the maxima and one compares. bfloat16, which numpy does not know, is compared by its
    bits: positive ones rank as these do, and where a bound is not above 0, a pass first makes bits that rank as all do.

    Args:
        logits: float [n, c].
        k: at most c.
        margin: float32 [n]; a rounding of the bound itself is added.

    Returns:
        int64 [n], how many columns of each row, at least k; int64, the columns, row after row. None where another way
        is better: on a GPU, with few columns, and with many equal values.
    """
    n, c = logits.shape
    chunks = c // _CHUNK
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
    if counts.min() < k or counts.max() > 8 * k:  # fewer where a logit is not a number
        return None
    return torch.from_numpy(counts), torch.from_numpy(column)


def _bound(logits: Tensor, k: int, margin: Tensor) -> Tensor:
    """The k-th largest of the maxima of the chunks of each row, less the margin and a rounding: [n].

    The logits are float32 and so is the bound, or they are int16, the bits of bfloat16 that rank as it does.
    """
    chunks = logits.shape[1] // _CHUNK
    maxima = logits[:, : chunks * _CHUNK].view(len(logits), _CHUNK, chunks).amax(dim=1).numpy()
    bound = torch.from_numpy(np.partition(maxima, chunks - k, axis=1)[:, chunks - k])
    if bound.dtype == torch.int16:
        bound = _ranking(bound).view(torch.bfloat16)
    return (bound - margin - torch.finfo(bound.dtype).eps * bound.abs()).to(bound.dtype)


def _ranking(bits: Tensor) -> Tensor:
    """int16 that rank as the bfloat16 of these bits do; done twice, the bits again."""
    return (bits >> 15).bitwise_and_(torch.iinfo(torch.int16).max).bitwise_xor_(bits)


def _highest(values: Tensor, counts: Tensor, columns: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, [n, k] values and columns; the rows, of `counts` values, stand one after the other."""
    n, width = len(counts), int(counts.max())
    starts = counts.cumsum(0) - counts
    cells = torch.arange(len(values)) + torch.repeat_interleave(torch.arange(n) * width - starts, counts)
    padded = values.new_full((n * width,), -torch.inf)
    padded[cells] = values
    best, order = padded.view(n, width).topk(k, dim=1)
    return best, columns[starts[:, None] + order]


def product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """a b into `out`, by the faster library: on AMD numpy's BLAS takes half of torch's time, elsewhere no more."""
    if a.device.type == "cpu":
        np.matmul(a.numpy(), b.numpy(), out=out.numpy())
    else:
        torch.matmul(a, b, out=out)
