"""Change of losses and recalls along a front, with bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from multitron_core.errors import InputError
from multitron_core.front.bootstrap import bootstrap
from multitron_core.front.measurement import FrontMeasurement, check_list_length
from multitron_core.front.volume import dominated

COLUMNS = ("click_loss", "order_loss", "click_recall_{k}", "order_recall_{k}", "recall_x_density")
"""Columns of `front_table` whose change is reported."""


def front_change(
    measurement: FrontMeasurement, *, k: int = 20, resamples: int = 1000, level: float = 0.95, seed: int = 1
) -> pl.DataFrame:
    """Change between the two points of `non_dominated_ends`, the last minus the first.

    Both points are measured on the same sessions, so the intervals are those of a paired difference. They are much
    narrower than the intervals of the two values.

    Args:
        measurement: Measurement of a model with two objectives.
        k: List length of the recalls.
        resamples, level, seed: Settings of the bootstrap over sessions.

    Returns:
        One row per entry of `COLUMNS`: `column`; `first` and `last`, its values at the two points; `change`; `low` and
        `high`, the bootstrap confidence interval of the change. Order recall is null if no step is ordered.

    Raises:
        InputError: `k` is out of range, or the front has no non-dominated point with trained ranks.
    """
    return changes([session_sums(measurement, k=k)], k=k, resamples=resamples, level=level, seed=seed)


def non_dominated_ends(measurement: FrontMeasurement) -> tuple[int, int]:
    """Indices of the first and the last non-dominated point with trained ranks, in the order of pi_order.

    Raises:
        InputError: The front has no such point.
    """
    is_dominated = dominated(measurement.losses.mean(axis=1, dtype=np.float64))
    eligible = np.flatnonzero(~is_dominated & measurement.ranks_trained)
    if not len(eligible):
        raise InputError(
            "the front has no non-dominated point with trained ranks",
            where="non_dominated_ends",
            found=measurement.pi[:, -1].tolist(),
            hint="measure more preferences between 0 and 1",
        )
    return int(eligible[0]), int(eligible[-1])


def session_sums(measurement: FrontMeasurement, *, k: int = 20) -> np.ndarray:
    """Per-session sums of a front that `changes` needs.

    Returns:
        float64 [sessions, 10]: the steps, the ordered steps, then for each point of `non_dominated_ends` the click
        loss, the order loss, the hits and the ordered hits.

    Raises:
        InputError: `k` is out of range, or the front has no non-dominated point with trained ranks.
    """
    check_list_length(k)
    _, session = np.unique(measurement.steps["session"].to_numpy(), return_inverse=True)
    ordered = measurement.steps["ordered"].to_numpy()
    summands = [np.ones(len(session)), ordered]
    for point in non_dominated_ends(measurement):
        hits = measurement.ranks[point] <= k
        summands += [*measurement.losses[point].T, hits, hits & ordered]
    return np.column_stack([np.bincount(session, weights=values) for values in summands])


def changes(
    models: Sequence[np.ndarray], *, k: int = 20, resamples: int = 1000, level: float = 0.95, seed: int = 1
) -> pl.DataFrame:
    """`front_change` of the mean of several models that were measured on the same sessions.

    All models use the same resamples of sessions. The interval does not contain the variance between training seeds,
    nor the fact that the two points were selected on the same sessions.

    Args:
        models: `session_sums` of each model.
        k, resamples, level, seed: See `front_change`.

    Returns:
        A table as `front_change` returns it.
    """

    def figures(totals: np.ndarray) -> np.ndarray:
        """Means over the models at the first point, at the last point, and their difference."""
        means = np.mean([_metrics_at_ends(of_model) for of_model in totals.reshape(len(models), -1)], axis=0)
        return np.concatenate([*means, means[1] - means[0]])

    intervals = bootstrap(np.column_stack(models), figures, resamples=resamples, level=level, seed=seed)
    n = len(COLUMNS)
    first, last, change = intervals[:n], intervals[n : 2 * n], intervals[2 * n :]
    return pl.DataFrame(
        {
            "column": [name.format(k=k) for name in COLUMNS],
            "first": [interval.value for interval in first],
            "last": [interval.value for interval in last],
            "change": [interval.value for interval in change],
            "low": [interval.low for interval in change],
            "high": [interval.high for interval in change],
        }
    ).fill_nan(None)


def _metrics_at_ends(totals: np.ndarray) -> np.ndarray:
    """`COLUMNS` at the first and the last point, float [2, 5], from the totals of `session_sums`, float [10]."""
    steps, ordered_steps = totals[:2]
    click_loss, order_loss, hits, ordered_hits = totals[2:].reshape(2, 4).T
    order_recall = ordered_hits / ordered_steps if ordered_steps else np.full(2, np.nan)
    by_steps = np.stack([click_loss, order_loss, hits, ordered_hits]) / steps
    return np.column_stack([*by_steps[:3], order_recall, by_steps[3]])
