"""What a front's preferences change, from its first worthwhile point to its last, and how sure that is."""

from __future__ import annotations

import numpy as np
import polars as pl

from multitron_core.bootstrap import bootstrap
from multitron_core.front_measurement import FrontMeasurement, check_list_length
from multitron_core.hypervolume import dominated


def front_change(
    measurement: FrontMeasurement, *, k: int = 20, resamples: int = 1000, level: float = 0.95, seed: int = 1
) -> pl.DataFrame:
    """The last minus the first of the points that no other dominates, in the order of pi_order.

    Both were measured on the same sessions, so the intervals are of the paired difference: far narrower than those of
    the two figures.

    Args:
        measurement: what `measure_front` gave for a model of two objectives.
        k: the length of the lists.
        resamples, level, seed: of the bootstrap by session.

    Returns:
        `column`, as in `front_table`: the two losses, click recall, order recall, recall x density; `first_pi_order`
        and `last_pi_order`; `first` and `last`, its values there; `change`, with its interval `low` to `high`. Order
        recall is null where no step is ordered.

    Raises:
        InputError: lists longer than ranks are exact.
    """
    check_list_length(k)
    kept = np.flatnonzero(~dominated(measurement.losses.mean(axis=1, dtype=np.float64)))
    ends = [int(kept[0]), int(kept[-1])]
    _, session = np.unique(measurement.steps["session"].to_numpy(), return_inverse=True)
    ordered = measurement.steps["ordered"].to_numpy()
    of_steps = [np.ones(len(session)), ordered]
    for point in ends:
        hits = measurement.ranks[point] <= k
        of_steps += [*measurement.losses[point].T, hits, hits & ordered]
    sums = np.column_stack([np.bincount(session, weights=values) for values in of_steps])

    def figures(totals: np.ndarray) -> np.ndarray:
        """At the first point, at the last, and the difference."""
        steps, ordered_steps, *sums_of_points = totals
        at = []
        for click_loss, order_loss, hits, ordered_hits in np.reshape(sums_of_points, (2, 4)):
            order_recall = ordered_hits / ordered_steps if ordered_steps else np.nan
            at.append([*(np.array([click_loss, order_loss, hits]) / steps), order_recall, ordered_hits / steps])
        return np.concatenate([at[0], at[1], np.subtract(at[1], at[0])])

    first, last, change = np.reshape(
        np.array(bootstrap(sums, figures, resamples=resamples, level=level, seed=seed), dtype=object), (3, -1)
    )
    columns = ("click_loss", "order_loss", f"click_recall_{k}", f"order_recall_{k}", "recall_x_density")
    return pl.DataFrame(
        {
            "column": columns,
            "first_pi_order": float(measurement.pi[ends[0], 1]),
            "last_pi_order": float(measurement.pi[ends[1], 1]),
            "first": [interval.value for interval in first],
            "last": [interval.value for interval in last],
            "change": [interval.value for interval in change],
            "low": [interval.low for interval in change],
            "high": [interval.high for interval in change],
        }
    ).fill_nan(None)
