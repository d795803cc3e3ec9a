"""Bootstrap confidence intervals for statistics of per-session sums.

Steps of one session are not independent. The bootstrap therefore resamples whole sessions with replacement (Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap confidence interval.

    Args:
        value: The estimate from all sessions.
        low, high: Bounds of the interval.
        level: Coverage of the interval, for example 0.95.
    """

    value: float
    low: float
    high: float
    level: float

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
    """Percentile intervals of statistics that depend on the data only through sums over sessions.

    All statistics use the same resamples, so the difference of two statistics of the same sessions is paired.

    Args:
        sums: float [sessions, m], the summands of each session.
        figures: Maps the totals, float [m], to the statistics, float [f]. NaN marks a statistic that is undefined for
            these totals.
        resamples: Number of bootstrap resamples.
        level: Coverage of the intervals.
        seed: Seed of the resampling.

    Returns:
        One interval per statistic. Undefined resamples are left out; if all are undefined, the bounds are NaN.
    """
    rng = np.random.default_rng(seed)
    sessions = len(sums)
    resampled = np.array(
        [
            figures(np.bincount(rng.integers(sessions, size=sessions), minlength=sessions) @ sums)
            for _ in range(resamples)
        ]
    )
    tail = (1.0 - level) / 2.0
    values = figures(sums.sum(axis=0))
    intervals = []
    for value, draws in zip(values, resampled.T, strict=True):
        defined = draws[~np.isnan(draws)]
        low, high = np.quantile(defined, [tail, 1.0 - tail]) if len(defined) else (np.nan, np.nan)
        intervals.append(Interval(float(value), float(low), float(high), level))
    return intervals
