"""The preference vector pi = [pi_click, pi_order] and its key.

As a key (a partition, a column, a file name) pi is the weight on orders as a string with two decimals, "0.00" to
"1.00": a float made `0.30000000000000004` as a Delta partition value, and decimals break some readers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from multitron_core.errors import InputError

DEFAULT_GRID: tuple[str, ...] = ("0.00", "0.25", "0.50", "0.75", "1.00")
"""The preferences a night scores when nobody says otherwise."""

_KEY = re.compile(r"0\.\d\d|1\.00")


def pi_key(pi_order: float | str) -> str:
    """The key of a preference.

    Args:
        pi_order: the weight on orders in [0, 1], a multiple of 0.01; or a key, which is checked and returned.

    Returns:
        "0.00" ... "1.00".

    Raises:
        InputError: not a number, outside [0, 1], or finer than two decimals.
    """
    if isinstance(pi_order, str):
        if not _KEY.fullmatch(pi_order):
            raise InputError(
                "not a pi key", found=pi_order, mend='use the weight on orders with two decimals, "0.00" to "1.00"'
            )
        return pi_order
    if not 0.0 <= pi_order <= 1.0:  # also refuses NaN
        raise InputError("pi_order lies outside [0, 1]", found=pi_order, mend="use a weight between 0 and 1")
    key = f"{pi_order:.2f}"
    if abs(float(key) - pi_order) > 1e-9:
        raise InputError("pi_order is finer than its key", found=pi_order, mend=f"use two decimals, for example {key}")
    return key


def pi_vector(key: float | str) -> tuple[float, float]:
    """(pi_click, pi_order) of a key; the two sum to 1 exactly as doubles rounded to two decimals."""
    pi_order = float(pi_key(key))
    return round(1.0 - pi_order, 2), pi_order


def pi_grid(keys: Iterable[float | str]) -> tuple[str, ...]:
    """A grid of preferences: checked, without repeats, rising.

    Raises:
        InputError: an empty grid, a repeated or an invalid preference.
    """
    grid = [pi_key(key) for key in keys]
    if not grid:
        raise InputError("the pi grid is empty", mend=f"give at least one preference, for example {DEFAULT_GRID}")
    repeated = sorted({key for key in grid if grid.count(key) > 1})
    if repeated:
        raise InputError("the pi grid names a preference twice", found=repeated, mend="name each preference once")
    return tuple(sorted(grid))
