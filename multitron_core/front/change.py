"""What a front's preferences change, from its first worthwhile point to its last, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from multitron_core.errors import InputError
from multitron_core.front.bootstrap import bootstrap
from multitron_core.front.measurement import FrontMeasurement, check_list_length
from multitron_core.front.volume import dominated

COLUMNS = ("click_loss", "order_loss", "click_recall_{k}", "order_recall_{k}", "recall_x_density")
"""What is followed, by its name in `front_table`."""


def front_change(
    measurement: FrontMeasurement, *, k: int = 20, resamples: int = 1000, level: float = 0.95, seed: int = 1
) -> pl.DataFrame:
    """The last minus the first of the points that `non_dominated_ends` gives.

    Both were measured on the same sessions, so the intervals are of the paired difference: far narrower than those of
    the two figures.

    Args:
        measurement: what `measure_front` gave for a model of two objectives.
        k: the length of the lists.
        resamples, level, seed: of the bootstrap by session.

    Returns:
        `column`, of `COLUMNS`; `first` and `last`, its values there; `change`, with its interval `low` to `high`. Order
        recall is null where no step is ordered.

    Raises:
        InputError: lists longer than ranks are exact, or no such point.
    """
    return changes([session_sums(measurement, k=k)], k=k, resamples=resamples, level=level, seed=seed)


def non_dominated_ends(measurement: FrontMeasurement) -> tuple[int, int]:
    """The first and the last point, in the order of pi_order, that no other dominates and whose ranks were trained.

    Raises:
        InputError: there is none.
    """
    beaten = dominated(measurement.losses.mean(axis=1, dtype=np.float64))
    kept = np.flatnonzero(~beaten & measurement.ranks_trained)
    if not len(kept):
        raise InputError(
            "every point of the front is dominated or has ranks that nothing trained",
            where="front_change",
            found=measurement.pi[:, -1].tolist(),
            hint="measure more preferences between 0 and 1",
        )
    return int(kept[0]), int(kept[-1])


def session_sums(measurement: FrontMeasurement, *, k: int = 20) -> np.ndarray:
    """What `changes` needs of a front, by session: its steps, its ordered steps, and of the two points of
    `non_dominated_ends` the two losses, the hits and the ordered hits; float64 [sessions, 10].

    Raises:
        InputError: lists longer than ranks are exact, or no such point.
    """
    check_list_length(k)
    _, session = np.unique(measurement.steps["session"].to_numpy(), return_inverse=True)
    ordered = measurement.steps["ordered"].to_numpy()
    of_steps = [np.ones(len(session)), ordered]
    for point in non_dominated_ends(measurement):
        hits = measurement.ranks[point] <= k
        of_steps += [*measurement.losses[point].T, hits, hits & ordered]
    return np.column_stack([np.bincount(session, weights=values) for values in of_steps])


def changes(
    models: Sequence[np.ndarray], *, k: int = 20, resamples: int = 1000, level: float = 0.95, seed: int = 1
) -> pl.DataFrame:
    """The change of `front_change` in the mean of several models that were measured on the same sessions.

    Args:
        models: what `session_sums` gave for each.
        k, resamples, level, seed: see `front_change`. The draws of sessions are the same for all models. How models of
            other seeds would differ, and that the two points were picked on the same sessions, is not in the interval.

    Returns:
        As `front_change`.
    """

    def figures(totals: np.ndarray) -> np.ndarray:
        """Means over models at the first point, at the last, and the difference."""
        means = np.mean([_at_both(of_model) for of_model in totals.reshape(len(models), -1)], axis=0)
        return np.concatenate([*means, means[1] - means[0]])

    intervals = bootstrap(np.column_stack(models), figures, resamples=resamples, level=level, seed=seed)
    of_each = len(COLUMNS)
    first, last, change = (intervals[start : start + of_each] for start in range(0, 3 * of_each, of_each))
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


def _at_both(totals: np.ndarray) -> np.ndarray:
    """[10] of `session_sums`, summed -> [2, columns]: the figures at the first and the last point."""
    steps, ordered_steps = totals[:2]
    click_loss, order_loss, hits, ordered_hits = totals[2:].reshape(2, 4).T
    order_recall = ordered_hits / ordered_steps if ordered_steps else np.full(2, np.nan)
    by_steps = np.stack([click_loss, order_loss, hits, ordered_hits]) / steps
    return np.column_stack([*by_steps[:3], order_recall, by_steps[3]])
