"""Where the points of a front lie: which preferences are worth measuring."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from multitron_core.errors import InputError
from multitron_core.preference.beta_quantile import beta_quantile


def spaced_preferences(
    points: int = 26, *, spacing: Literal["beta", "square"] = "beta", beta: Sequence[float] = (0.5, 0.5)
) -> list[float]:
    """The weights on orders of a front's points, rising from 0 to 1.

    "beta": pi_click is the quantile i / (points - 1) of Beta(beta_click, beta_order), i = 0 ... points - 1, so that
    points lie where training drew its preferences (the paper's Diginetica and OTTO). "square": pi_click is
    (i / (points - 1))^2 (its Yoochoose).

    Raises:
        InputError: fewer than two points, an unknown spacing, or a beta that is not two positive numbers.
    """
    if points < 2:
        raise InputError("a front needs two points or more", found=points, hint="the paper takes 26")
    if len(beta) != 2:
        raise InputError("a front between two objectives needs a beta of two", found=tuple(beta), hint="use (0.5, 0.5)")
    shares = [i / (points - 1) for i in range(points)]
    if spacing == "square":
        clicks = [share * share for share in shares]
    elif spacing == "beta":
        clicks = [beta_quantile(share, beta[0], beta[1]) for share in shares]
    else:
        raise InputError("unknown spacing", found=spacing, hint="use 'beta' or 'square'")
    return [1.0 - click for click in reversed(clicks)]


def lattice_preferences(points: int, objectives: int) -> list[tuple[float, ...]]:
    """The preferences of a front between three or more objectives: a lattice on their simplex, with all its corners.

    All weights are multiples of 1/h, for the smallest h that gives at least so many points (Das, Dennis,
    "Normal-Boundary Intersection", SIAM J. Optim. 1998): 26 points of three objectives become 28, h = 6.

    Returns:
        Preferences, rising by the last weight, then by the one before it.
    """
    if points < objectives:
        raise InputError("a front needs its ends", found=points, hint=f"use {objectives} points or more")
    for h in itertools.count(1):
        # h stars and k - 1 bars, in every order: the stars between two bars are a weight
        bars = list(itertools.combinations(range(h + objectives - 1), objectives - 1))
        if len(bars) >= points:
            break
    ends = [(-1, *chosen, h + objectives - 1) for chosen in bars]
    lattice = [tuple((b - a - 1) / h for a, b in itertools.pairwise(each)) for each in ends]
    return sorted(lattice, key=lambda weights: weights[::-1])
