"""How good a front is: dominance, hypervolume and its uncertainty. Losses, so smaller is better throughout.

The computation is moocore's. What the numbers refer to is said here: a hypervolume without its reference point cannot
be compared with anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from multitron_core.errors import InputError
from multitron_core.front.bootstrap import Interval, bootstrap

PAPER_REFERENCES: dict[str, tuple[float, float]] = {
    "diginetica": (4.0, 0.7),
    "yoochoose": (4.0, 0.17),
    "otto": (4.0, 1.0),
}
"""Reference points (click loss, order loss) that fit the paper's Table 2; the paper does not disclose its own."""


def _losses(points: object, *, least: int = 1) -> np.ndarray:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or len(array) < least or array.shape[1] < 2:
        raise InputError(
            "losses of a front must be a table [points, objectives]",
            found=array.shape,
            hint=f"give at least {least} points of two or more objectives",
        )
    if not np.isfinite(array).all():
        raise InputError("a loss of the front is not finite", found=array[~np.isfinite(array)][0].item())
    return array


def dominated(points: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
    """Which points another point beats: no worse in every loss and better in one. Equal points do not beat each other.

    Args:
        points: float [n, k], losses.

    Returns:
        bool [n].
    """
    return ~np.asarray(moocore.is_nondominated(_losses(points), keep_weakly=True), dtype=bool)


def hypervolume(points: np.ndarray | Sequence[Sequence[float]], reference: np.ndarray | Sequence[float]) -> float:
    """The volume that the points dominate below the reference point.

    Args:
        points: float [n, k], losses, k >= 2; a point that is not below the reference in every loss adds nothing.
        reference: float [k]; report it with the figure.

    Returns:
        A volume >= 0, in the product of the losses' units.

    Raises:
        InputError: losses that are not finite, or a reference of another length.
    """
    losses = _losses(points)
    reference = np.asarray(reference, dtype=np.float64)
    if reference.shape != (losses.shape[1],) or not np.isfinite(reference).all():
        raise InputError(
            "the reference point does not fit the losses",
            where="hypervolume",
            found=reference.tolist(),
            hint=f"give {losses.shape[1]} finite numbers, one a loss",
        )
    return float(moocore.hypervolume(losses, ref=reference))


def normalised_hypervolume(points: np.ndarray | Sequence[Sequence[float]]) -> float:
    """The hypervolume after each loss is mapped to [0, 1] by the points' own smallest and largest value.

    It says how bent a front is (1: its ends cost each other nothing; a straight line of many points: 1/2) and nothing
    of how low it lies: report it together with the raw one. The largest values are taken over all given points,
    dominated ones included, which is how the paper's published fronts come to .958, .850 and .971.

    Args:
        points: float [n, k], losses.

    Returns:
        In [0, 1]; 0 where the points have no extent in some loss, so that there is no trade-off to measure.
    """
    losses = _losses(points)
    ideal, nadir = losses.min(axis=0), losses.max(axis=0)
    if (ideal == nadir).any():
        return 0.0
    return hypervolume((losses - ideal) / (nadir - ideal), np.ones(losses.shape[1]))


@dataclass(frozen=True)
class FrontVolume:
    """The two hypervolumes of a front; one is never reported without the other."""

    normalised: Interval
    raw: Interval
    reference: tuple[float, ...]  # of the raw one


def bootstrap_hypervolume(
    sums: np.ndarray,
    steps: np.ndarray,
    reference: Sequence[float],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 1,
) -> FrontVolume:
    """Hypervolumes with intervals by drawing whole sessions: see `bootstrap`.

    Args:
        sums: float [sessions, points, k], each session's losses summed over its steps.
        steps: int [sessions], steps a session.
        reference: float [k], of the raw hypervolume.
        resamples, level, seed: of the bootstrap.

    Returns:
        Both hypervolumes with their intervals.
    """
    sessions, points, k = sums.shape

    def volumes(totals: np.ndarray) -> np.ndarray:
        means = (totals[:-1] / totals[-1]).reshape(points, k)
        return np.array([normalised_hypervolume(means), hypervolume(means, reference)])

    flat = np.column_stack([sums.reshape(sessions, -1), steps])  # (sessions, points k + 1)
    normalised, raw = bootstrap(flat, volumes, resamples=resamples, level=level, seed=seed)
    return FrontVolume(normalised, raw, tuple(float(value) for value in reference))
