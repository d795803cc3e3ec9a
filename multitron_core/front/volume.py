"""Dominance and hypervolume of a front of losses, with bootstrap confidence intervals.

Smaller losses are better. The hypervolume is the volume between the front and a reference point; larger is better.
Hypervolumes are comparable only for the same reference point, so it is always reported with them. The algorithms are
those of the library moocore.
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
"""Reference points (click loss, order loss) that reproduce Table 2 of the paper, which does not publish its own."""


def _losses(points: object) -> np.ndarray:
    """The points as float64 [n, k], checked."""
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or not len(array) or array.shape[1] < 2:
        raise InputError(
            "the losses of a front must have the shape [points, objectives]",
            found=array.shape,
            hint="pass at least one point with two or more objectives",
        )
    if not np.isfinite(array).all():
        raise InputError("a loss of the front is not finite", found=array[~np.isfinite(array)][0].item())
    return array


def dominated(points: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
    """Which points are dominated: another point is no worse in all losses and better in at least one.

    Equal points do not dominate each other.

    Args:
        points: float [n, k], losses.

    Returns:
        bool [n].
    """
    return ~np.asarray(moocore.is_nondominated(_losses(points), keep_weakly=True), dtype=bool)


def hypervolume(points: np.ndarray | Sequence[Sequence[float]], reference: np.ndarray | Sequence[float]) -> float:
    """Volume that the points dominate, bounded by the reference point.

    Args:
        points: float [n, k], losses, k >= 2. A point that is not below the reference in every loss adds nothing.
        reference: float [k], the reference point; report it with the hypervolume.

    Returns:
        A volume >= 0. Its unit is the product of the units of the losses.

    Raises:
        InputError: A loss is not finite, or the reference has another length.
    """
    losses = _losses(points)
    reference = np.asarray(reference, dtype=np.float64)
    if reference.shape != (losses.shape[1],) or not np.isfinite(reference).all():
        raise InputError(
            "the reference point does not match the losses",
            where="hypervolume",
            found=reference.tolist(),
            hint=f"pass {losses.shape[1]} finite numbers, one per loss",
        )
    return float(moocore.hypervolume(losses, ref=reference))


def normalised_hypervolume(points: np.ndarray | Sequence[Sequence[float]]) -> float:
    """Hypervolume after each loss is scaled to [0, 1], from the smallest to the largest value of the points.

    The reference point is the largest value of every loss. The result describes the shape of a front, not its level: 1
    means no trade-off, and a straight line of many points approaches 1/2. Report it together with the raw hypervolume.
    The scale includes dominated points; the paper's published fronts then have .958, .850 and .971.

    Args:
        points: float [n, k], losses.

    Returns:
        A value in [0, 1]; 0 if all points are equal in some loss, because there is no trade-off to measure.
    """
    losses = _losses(points)
    ideal, nadir = losses.min(axis=0), losses.max(axis=0)
    if (ideal == nadir).any():
        return 0.0
    return hypervolume((losses - ideal) / (nadir - ideal), np.ones(losses.shape[1]))


@dataclass(frozen=True)
class FrontVolume:
    """Both hypervolumes of a front, which are always reported together.

    Args:
        normalised: Hypervolume of the losses scaled to [0, 1], see `normalised_hypervolume`.
        raw: Hypervolume of the losses in nats.
        reference: Reference point of the raw hypervolume.
    """

    normalised: Interval
    raw: Interval
    reference: tuple[float, ...]


def bootstrap_hypervolume(
    sums: np.ndarray,
    steps: np.ndarray,
    reference: Sequence[float],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 1,
) -> FrontVolume:
    """Hypervolumes with bootstrap confidence intervals over sessions, see `bootstrap`.

    Args:
        sums: float [sessions, points, k], each session's losses summed over its steps.
        steps: int [sessions], steps per session.
        reference: float [k], reference point of the raw hypervolume.
        resamples, level, seed: Settings of the bootstrap.
    """
    sessions, points, k = sums.shape

    def volumes(totals: np.ndarray) -> np.ndarray:
        means = (totals[:-1] / totals[-1]).reshape(points, k)
        return np.array([normalised_hypervolume(means), hypervolume(means, reference)])

    flat = np.column_stack([sums.reshape(sessions, -1), steps])  # (sessions, points k + 1)
    normalised, raw = bootstrap(flat, volumes, resamples=resamples, level=level, seed=seed)
    return FrontVolume(normalised, raw, tuple(float(value) for value in reference))
