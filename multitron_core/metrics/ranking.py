"""Exact ranking metrics over the whole catalogue, without sampled candidates and without averaging over batches.

An evaluation step is a click that has a click before it in its session. The model reads the clicks before it and ranks
the whole catalogue; the step's click is the target. All metrics are ratios of sums over steps, computed from the ranks
of the targets, so models and baselines share the same code.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import torch
from torch import Tensor

from multitron_core.errors import InputError
from multitron_core.preference.objectives import LABELS
from multitron_core.utils.topk import product

_BLOCK_SCORES = {"cpu": 1 << 24, "cuda": 1 << 28}  # scores per block: 64 MiB of float32, 1 GiB on a GPU
_MIN_ROWS = 64  # rows per block for any catalogue size; fewer make the matrix product slow


@torch.inference_mode()
def score_blocks(states: Tensor, item_weight: Tensor, *, max_rows: int | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Scores of the whole catalogue in blocks of steps, to bound memory.

    Args:
        states: float [n, d], or [n, points, d] for several states per step.
        item_weight: float [items, d].
        max_rows: Maximum number of states per block; by default as many as give 64 MiB of float32 scores on a CPU or 1
            GiB on a GPU, and at least 64. A block has at least one step.

    Yields:
        The block's slice of `states` and its scores, float [steps, items] or [steps, points, items]. The next block
        overwrites the scores.
    """
    states_per_step = states[0].numel() // states.shape[-1] if len(states) else 1
    if max_rows is None:
        max_rows = max(_MIN_ROWS, _BLOCK_SCORES.get(states.device.type, 1 << 24) // len(item_weight))
    size = max(1, min(len(states), max_rows // states_per_step))
    buffer = states.new_empty(size, *states.shape[1:-1], len(item_weight))
    for start in range(0, len(states), size):
        part = states[start : start + size]
        scores = buffer[: len(part)]
        product(part.flatten(0, -2), item_weight.T, out=scores.flatten(0, -2))
        yield slice(start, start + len(part)), scores


@torch.inference_mode()
def target_ranks(scores: Tensor, targets: Tensor) -> Tensor:
    """Exact rank of each target: 1 + the number of items with a higher score, or an equal score and a smaller index.

    Args:
        scores: float [n, items]; the item of index i is in column i - 1.
        targets: int64 [n], 1-based item indices.

    Returns:
        int64 [n], from 1 to `items`.

    Raises:
        InputError: The score of a target is not finite.
    """
    places = targets[:, None] - 1
    target_scores = scores.gather(1, places)
    if not torch.isfinite(target_scores).all():
        raise InputError(
            "a score is not finite", where="target_ranks", hint="the training diverged; train the model again"
        )
    if scores.device.type == "cpu":
        ranks, ties = _cpu_ranks(scores.numpy(), target_scores.numpy()[:, 0])
    else:
        ranks = 1 + (scores > target_scores).sum(dim=1)
        ties = (scores == target_scores).sum(dim=1)
    for row in torch.nonzero(ties > 1).flatten().tolist():  # rare; one tie is the target itself
        ranks[row] += int((scores[row, : int(places[row])] == target_scores[row]).sum())
    return ranks


def _cpu_ranks(scores: np.ndarray, target_scores: np.ndarray) -> tuple[Tensor, Tensor]:
    """1 + the number of higher scores, and the number of equal scores, int64 [n] each.

    Both passes over a row follow each other, so the second finds the row in the CPU cache.
    """
    higher, equal = np.empty(len(scores), dtype=np.int64), np.empty(len(scores), dtype=np.int64)
    mask = np.empty(scores.shape[1], dtype=bool)
    for i, (row, target_score) in enumerate(zip(scores, target_scores, strict=True)):
        higher[i] = np.count_nonzero(np.greater(row, target_score, out=mask))
        equal[i] = np.count_nonzero(np.equal(row, target_score, out=mask))
    return torch.from_numpy(1 + higher), torch.from_numpy(equal)


def ranking_metrics(steps: pl.DataFrame, *, k: int = 20) -> dict[str, float | None]:
    """Ranking metrics, each a ratio of sums over all steps.

    A hit is a step whose target is among the first k items.

    Args:
        steps: One row per step: `rank` (integer, 1-based), `ordered` and `last` (Boolean), optionally `carted`.
        k: List length.

    Returns:
        The metrics by name; None for a ratio whose denominator is 0:

        - `click_recall_k`: hits per step;
        - `click_mrr_k`: mean reciprocal rank, 0 for steps without a hit;
        - `last_click_recall_k`, `last_click_mrr_k`: the same over the last step of each session;
        - `order_recall_k`: hits per step among steps whose target is ordered later in the session;
        - `order_density`: share of the hits whose target is ordered;
        - `recall_x_density`: `click_recall_k` times `order_density`, reported to predict click-through and conversion
          (arXiv 2507.09566);
        - `cart_recall_k`: as `order_recall_k`, for the column `carted` if `steps` has it.
    """
    hit = pl.col("rank") <= k
    reciprocal = pl.when(hit).then(1.0 / pl.col("rank")).otherwise(0.0)
    ordered_hits = (hit & pl.col("ordered")).sum()
    return steps.select(
        hit.mean().alias(f"click_recall_{k}"),
        reciprocal.mean().alias(f"click_mrr_{k}"),
        hit.filter(pl.col("last")).mean().alias(f"last_click_recall_{k}"),
        reciprocal.filter(pl.col("last")).mean().alias(f"last_click_mrr_{k}"),
        _ratio(ordered_hits, pl.col("ordered").sum()).alias(f"order_recall_{k}"),
        _ratio(ordered_hits, hit.sum()).alias("order_density"),
        (hit.mean() * _ratio(ordered_hits, hit.sum())).alias("recall_x_density"),
        *(
            _ratio((hit & pl.col(label)).sum(), pl.col(label).sum()).alias(f"{event}_recall_{k}")
            for event, label in LABELS.items()
            if event != "order" and label in steps.columns
        ),
    ).row(0, named=True)


def _ratio(numerator: pl.Expr, denominator: pl.Expr) -> pl.Expr:
    """The ratio, null if the denominator is 0."""
    return pl.when(denominator > 0).then(numerator / denominator)
