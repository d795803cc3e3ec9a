"""Published fronts of the paper, for comparison with measured ones.

Source: Wilm, Normann and Stepprath, "Pareto Front Approximation for Multi-Objective Session-Based Recommender Systems"
(RecSys 2024, arXiv 2407.16828), Figure 1, digitised from the figure. Each loss is scaled to [0, 1] from the smallest to
the largest value of its front, because absolute values cannot be read off precisely.
"""

from __future__ import annotations

from typing import Literal

import polars as pl

from multitron_core.errors import InputError
from multitron_core.preference.spacing import spaced_preferences

Spacing = Literal["beta", "square"]

# By data set: spacing of the preferences, then click losses and order losses from pi_order = 1 down to 0.
# fmt: off
_FRONTS: dict[str, tuple[Spacing, list[float], list[float]]] = {
    "diginetica": (
        "beta",
        [
            1.0, 0.98816, 0.9529, 0.89748, 0.8241, 0.7394, 0.65104, 0.56201, 0.4784,
            0.40586, 0.34211, 0.28567, 0.23994, 0.19711, 0.15904, 0.1238, 0.09046, 0.05934,
            0.03429, 0.01401, 0.0, 0.0004, 0.00084, 0.00916, 0.01454, 0.01846,
        ],
        [
            0.00229, 0.00212, 0.00164, 0.00098, 0.00034, 0.0, 0.00035, 0.00181, 0.0048,
            0.00959, 0.01636, 0.02535, 0.03684, 0.05132, 0.06968, 0.09361, 0.12633, 0.17236,
            0.23717, 0.32658, 0.44464, 0.58775, 0.73978, 0.87481, 0.96722, 1.0,
        ],
    ),
    "yoochoose": (
        "square",
        [
            1.0, 0.94523, 0.78978, 0.58, 0.37864, 0.2324, 0.14188, 0.08702, 0.054,
            0.03642, 0.02573, 0.01897, 0.01365, 0.01032, 0.00711, 0.00549, 0.00303, 0.00109,
            0.00137, 0.0, 0.00236, 0.00239, 0.00387, 0.00439, 0.00611, 0.00882,
        ],
        [
            0.0, 0.00741, 0.03123, 0.07259, 0.13088, 0.19522, 0.25252, 0.30305, 0.34615,
            0.37926, 0.40348, 0.42392, 0.44394, 0.46472, 0.48659, 0.51007, 0.53487, 0.56152,
            0.59074, 0.62316, 0.65951, 0.70142, 0.75121, 0.81356, 0.89411, 1.0,
        ],
    ),
    "otto": (
        "beta",
        [
            1.0, 0.91006, 0.6308, 0.28089, 0.11153, 0.0561, 0.03371, 0.02152, 0.01659,
            0.01369, 0.01173, 0.01021, 0.01021, 0.00871, 0.00835, 0.0085, 0.00865, 0.00679,
            0.00688, 0.00684, 0.00662, 0.0041, 0.00166, 0.00097, 0.0, 0.00052,
        ],
        [
            0.0, 0.00053, 0.00764, 0.02709, 0.04608, 0.05883, 0.06726, 0.07363, 0.07835,
            0.08161, 0.08411, 0.0864, 0.08872, 0.09121, 0.09406, 0.09756, 0.1022, 0.1086,
            0.11778, 0.13214, 0.15903, 0.22644, 0.38947, 0.65255, 0.90083, 1.0,
        ],
    ),
}
# fmt: on

PAPER_FRONTS = tuple(_FRONTS)
"""Data sets with a front in the paper."""


def paper_front(dataset: str) -> pl.DataFrame:
    """A published front.

    Args:
        dataset: One of `PAPER_FRONTS`.

    Returns:
        26 rows in ascending order of `pi_order`: `pi_order`, `click_loss`, `order_loss`, both losses scaled to [0, 1].

    Raises:
        InputError: The paper has no front of the data set.
    """
    if dataset not in _FRONTS:
        raise InputError(
            "the paper has no front of this data set", found=dataset, hint=f"use one of {', '.join(_FRONTS)}"
        )
    spacing, clicks, orders = _FRONTS[dataset]
    return pl.DataFrame(
        {
            "pi_order": spaced_preferences(len(clicks), spacing=spacing),
            "click_loss": clicks[::-1],
            "order_loss": orders[::-1],
        }
    )
