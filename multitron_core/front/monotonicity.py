"""Monotonicity of a front: does each loss fall as its weight rises?"""

from __future__ import annotations

import numpy as np
import polars as pl

from multitron_core.errors import InputError
from multitron_core.front.columns import list_length, objective_names

EXPECTED = {"click_loss": "rising", "click_recall": "falling", "order_loss": "falling", "order_recall": "rising"}
"""Expected direction of losses and recalls as pi_order rises."""


def monotonicity(front: pl.DataFrame) -> pl.DataFrame:
    """Measure how monotonically losses and recalls change with the weight on orders.

    Args:
        front: Table as `evaluate_front` returns it. Columns with nulls are left out.

    Returns:
        One row per loss and recall in `EXPECTED`:

        - `column`, `expected` ("rising" or "falling");
        - `first`, `last`: its values at the smallest and the largest weight;
        - `right_way`: share of the differences between neighbouring points that are zero or have the expected sign;
        - `worst_reversal`: largest distance by which a value falls behind the best value at a smaller weight, in the
          unit of the column; 0 for a monotonic column.
    """
    front = front.sort("pi_order")
    rows = []
    for start, expected in EXPECTED.items():
        for column in front.columns:
            if not column.startswith(start) or front[column].null_count():
                continue
            values = front[column].to_numpy() * (1.0 if expected == "rising" else -1.0)
            differences = np.diff(values)
            rows.append(
                {
                    "column": column,
                    "expected": expected,
                    "first": float(front[column][0]),
                    "last": float(front[column][-1]),
                    "right_way": float((differences >= 0.0).mean()) if len(differences) else 1.0,
                    "worst_reversal": float((np.maximum.accumulate(values) - values).max()),
                }
            )
    return pl.DataFrame(rows)


def reversing_losses(front: pl.DataFrame, *, tolerance: float = 0.1) -> pl.DataFrame:
    """Losses that are not monotonic: rows of `monotonicity` whose reversal exceeds the tolerance.

    Only non-dominated points with trained ranks count. Dominated points are never chosen, and the first points of a
    front often are dominated, in the paper's figures too.

    Args:
        front: Table as `evaluate_front` returns it.
        tolerance: Largest accepted reversal, as a share of the loss's range over these points.

    Returns:
        A table as `monotonicity` returns it; empty if both losses are monotonic within the tolerance.
    """
    eligible = front.filter(~pl.col("dominated") & pl.col("ranks_trained"))
    if eligible.is_empty():
        return monotonicity(front).clear()
    rows = monotonicity(eligible).filter(pl.col("column").str.ends_with("_loss"))
    ranges = [float(np.ptp(eligible[name].to_numpy())) for name in rows["column"]]
    return rows.filter(pl.col("worst_reversal") > tolerance * pl.Series(ranges, dtype=pl.Float64))


def extremes(front: pl.DataFrame) -> pl.DataFrame:
    """Compare each end of a front, where one objective has all the weight, with the best point for that objective.

    Args:
        front: Table as `evaluate_front` returns it, with all ends.

    Returns:
        One row per objective: `objective`; `loss`, its loss at its end; `best_loss`, the smallest over all points;
        `recall`, its recall at its end; `best_recall`, the largest over all points.

    Raises:
        InputError: An end is missing, or the table has no click recall.
    """
    k = list_length(front)
    rows = []
    for name in objective_names(front):
        end = front.filter(pl.col(f"pi_{name}") == 1.0)
        if end.is_empty():
            raise InputError(
                "an end of the front is missing",
                where=f"the point with pi_{name} = 1",
                hint="measure a preference with all weight on each objective",
            )
        recall = front[f"{name}_recall_{k}"]
        rows.append(
            {
                "objective": name,
                "loss": end[f"{name}_loss"][0],
                "best_loss": front[f"{name}_loss"].min(),
                "recall": end[recall.name][0],
                "best_recall": recall.max(),
            }
        )
    return pl.DataFrame(rows)
