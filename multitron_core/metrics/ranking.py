"""Exact ranking metrics: over the full catalogue, corpus-level ratios, never sampled, never averaged over batches.

Every click of a session that has a click before it is a step: the model reads the clicks before it and ranks the whole
catalogue. All metrics are made of the ranks of the steps' targets, a table with a row a step, so that a baseline and a
model are measured by the same lines.
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

_BLOCK_SCORES = {"cpu": 1 << 24, "cuda": 1 << 28}  # scores held at a time: 64 MiB of float32, 1 GiB on a GPU
_LEAST_ROWS = 64  # of a block, however large the catalogue: fewer make the product slow


@torch.inference_mode()
def score_blocks(states: Tensor, item_weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Scores of the whole catalogue, a block of steps at a time.

    Args:
        states: float [n, d], or [n, points, d] for several states a step.
        item_weight: float [items, d].

    Yields:
        The block's place in `states` and its scores, float [steps, items] or [steps, points, items], overwritten by
        the next block.
    """
    each = states[0].numel() // states.shape[-1] if len(states) else 1  # states a step
    rows = max(_LEAST_ROWS, _BLOCK_SCORES.get(states.device.type, 1 << 24) // len(item_weight))
    size = max(1, min(len(states), rows // each))
    buffer = states.new_empty(size, *states.shape[1:-1], len(item_weight))
    for start in range(0, len(states), size):
        part = states[start : start + size]
        scores = buffer[: len(part)]
        product(part.flatten(0, -2), item_weight.T, out=scores.flatten(0, -2))
        yield slice(start, start + len(part)), scores


@torch.inference_mode()
def target_ranks(scores: Tensor, targets: Tensor) -> Tensor:
    """The exact rank of each target: 1 + the items that score higher + the equal ones with a smaller index.

    Args:
        scores: float [n, items]; the item of index i stands at i - 1.
        targets: int64 [n], 1-based.

    Returns:
        int64 [n], from 1 to `items`.

    Raises:
        InputError: a target's score is not a number.
    """
    places = targets[:, None] - 1
    target_scores = scores.gather(1, places)
    if not torch.isfinite(target_scores).all():
        raise InputError(
            "a score is not finite", where="metrics.target_ranks", hint="the training has diverged: train again"
        )
    if scores.device.type == "cpu":
        ranks, ties = _cpu_ranks(scores.numpy(), target_scores.numpy()[:, 0])
    else:
        ranks = 1 + (scores > target_scores).sum(dim=1)
        ties = (scores == target_scores).sum(dim=1)
    for row in torch.nonzero(ties > 1).flatten().tolist():  # rare; one is the target itself
        ranks[row] += int((scores[row, : int(places[row])] == target_scores[row]).sum())
    return ranks


def _cpu_ranks(scores: np.ndarray, target_scores: np.ndarray) -> tuple[Tensor, Tensor]:
    """1 + the higher scores, and the equal ones, int64 [n]. Row by row, so that a row is still in the cache."""
    higher, equal = np.empty(len(scores), dtype=np.int64), np.empty(len(scores), dtype=np.int64)
    mask = np.empty(scores.shape[1], dtype=bool)
    for i, (row, target_score) in enumerate(zip(scores, target_scores, strict=True)):
        higher[i] = np.count_nonzero(np.greater(row, target_score, out=mask))
        equal[i] = np.count_nonzero(np.equal(row, target_score, out=mask))
    return torch.from_numpy(1 + higher), torch.from_numpy(equal)


def ranking_metrics(steps: pl.DataFrame, *, k: int = 20) -> dict[str, float | None]:
    """The metrics of a ranking, each a ratio of sums over all steps.

    A hit is a step whose target is among the first k. Order density is the share of the hits whose target is ordered;
    recall x density is reported to predict click-through and conversion (arXiv 2507.09566).

    Args:
        steps: a row a step: `rank` (integer, 1-based; anything above k is a miss), `ordered`, `last`.
        k: the length of the list.

    Returns:
        `click_recall_k` and `click_mrr_k` over all steps, `last_click_recall_k` and `last_click_mrr_k` over each
        session's last step, `order_recall_k` over the steps whose target is ordered, `order_density`,
        `recall_x_density`; `cart_recall_k` where steps have the column `carted`. None stands for a ratio that has no
        denominator.
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


def _ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    return pl.when(whole > 0).then(part / whole)
