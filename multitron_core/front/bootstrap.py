"""How sure a figure is that sums over sessions make: the bootstrap.

Steps of one session are not independent, so whole sessions are drawn, with replacement (Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap interval."""

    value: float
    low: float
    high: float
    level: float  # the interval's coverage, for example 0.95

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap(
    sums: np.ndarray,
    figures: Callable[[np.ndarray], np.ndarray],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 1,
) -> list[Interval]:
    """Percentile intervals of figures that depend on the sessions through sums over them alone.

    All figures see the same draws, so a difference of two things that were measured on the same sessions is paired.

    Args:
        sums: float [sessions, m], what each session adds.
        figures: from the totals, float [m], to the figures, float [f]; NaN for one that a draw does not have.
        resamples: bootstrap draws.
        level: coverage of the interval.
        seed: of the draws.

    Returns:
        An interval a figure; NaN bounds for one that no draw has.
    """
    rng = np.random.default_rng(seed)
    sessions = len(sums)
    drawn = np.array(
        [
            figures(np.bincount(rng.integers(sessions, size=sessions), minlength=sessions) @ sums)
            for _ in range(resamples)
        ]
    )
    tail = (1.0 - level) / 2.0
    values = figures(sums.sum(axis=0))
    intervals = []
    for value, draws in zip(values, drawn.T, strict=True):
        had = draws[~np.isnan(draws)]
        low, high = np.quantile(had, [tail, 1.0 - tail]) if len(had) else (np.nan, np.nan)
        intervals.append(Interval(float(value), float(low), float(high), level))
    return intervals
