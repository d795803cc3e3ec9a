"""Spacing of the preferences at which a front is measured."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from multitron_core.errors import InputError
from multitron_core.preference.beta_quantile import beta_quantile


def spaced_preferences(
    points: int = 26, *, spacing: Literal["beta", "square"] = "beta", beta: Sequence[float] = (0.5, 0.5)
) -> list[float]:
    """Weights on orders of the points of a front between clicks and orders, ascending from 0 to 1.

    Args:
        points: Number of points, at least 2; the paper uses 26.
        spacing: With "beta", pi_click is the quantile i / (points - 1) of Beta(beta_click, beta_order) for
            i = 0, ..., points - 1. The points are then dense where training draws many preferences (the paper's
            setting for Diginetica and OTTO). With "square", pi_click is (i / (points - 1))^2 (its setting for
            Yoochoose).
        beta: (beta_click, beta_order), positive.

    Raises:
        InputError: Fewer than two points, an unknown spacing, or a beta that is not two positive numbers.
    """
    if points < 2:
        raise InputError("a front needs two points or more", found=points, hint="use 26 as in the paper")
    if len(beta) != 2:
        raise InputError("a front of two objectives needs two values of beta", found=tuple(beta), hint="use (0.5, 0.5)")
    shares = [i / (points - 1) for i in range(points)]
    if spacing == "square":
        clicks = [share * share for share in shares]
    elif spacing == "beta":
        clicks = [beta_quantile(share, beta[0], beta[1]) for share in shares]
    else:
        raise InputError("unknown spacing", found=spacing, hint="use 'beta' or 'square'")
    return [1.0 - click for click in reversed(clicks)]


def lattice_preferences(points: int, objectives: int) -> list[tuple[float, ...]]:
    """Preferences of a front between three or more objectives: a lattice on the simplex, including all corners.

    All weights are multiples of 1/h, with the smallest h that gives at least `points` preferences (Das, Dennis,
    "Normal-Boundary Intersection", SIAM J. Optim. 1998). For example, 26 points between three objectives become 28,
    with h = 6.

    Args:
        points: Minimum number of preferences, at least `objectives`.
        objectives: Number of objectives.

    Returns:
        Preferences of one weight per objective, sorted by the last weight, then by the one before it, and so on.

    Raises:
        InputError: Fewer points than objectives.
    """
    if points < objectives:
        raise InputError("a front needs a point at each corner", found=points, hint=f"use {objectives} points or more")
    for h in itertools.count(1):
        # stars and bars: h stars and (objectives - 1) bars in all orders; h * weight is the stars between two bars
        bars = list(itertools.combinations(range(h + objectives - 1), objectives - 1))
        if len(bars) >= points:
            break
    ends = [(-1, *chosen, h + objectives - 1) for chosen in bars]
    lattice = [tuple((b - a - 1) / h for a, b in itertools.pairwise(each)) for each in ends]
    return sorted(lattice, key=lambda weights: weights[::-1])
