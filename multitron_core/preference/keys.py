"""The preference vector pi = [pi_click, pi_order] and its key.

As a key (a partition, a column, a file name) pi is the weight on orders as a string with two decimals, "0.00" to
"1.00": a float made `0.30000000000000004` as a Delta partition value, and decimals break some readers.

A model of more objectives has no such key: tables and nightly scoring stop there. In training and measurement its
preferences are written as all their weights with colons between, "0.20:0.30:0.50".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

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
                "not a pi key", found=pi_order, hint='use the weight on orders with two decimals, "0.00" to "1.00"'
            )
        return pi_order
    if not 0.0 <= pi_order <= 1.0:  # also refuses NaN
        raise InputError("pi_order lies outside [0, 1]", found=pi_order, hint="use a weight between 0 and 1")
    key = f"{abs(pi_order):.2f}"  # -0.0 is a zero, and its key is that of the other one
    if abs(float(key) - pi_order) > 1e-9:
        raise InputError("pi_order is finer than its key", found=pi_order, hint=f"use two decimals, for example {key}")
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
        raise InputError("the pi grid is empty", hint=f"give at least one preference, for example {DEFAULT_GRID}")
    repeated = sorted({key for key in grid if grid.count(key) > 1})
    if repeated:
        raise InputError("the pi grid names a preference twice", found=repeated, hint="name each preference once")
    return tuple(sorted(grid))


def preference(key: float | str, objectives: int = 2) -> tuple[float, ...]:
    """The weights of a preference for a model of any number of objectives.

    Args:
        key: for two objectives what `pi_vector` takes; for more, all weights with two decimals and colons between,
            for example "0.20:0.30:0.50".
        objectives: how many the model has.

    Returns:
        The weights, which sum to 1.

    Raises:
        InputError: not a preference of that many objectives.
    """
    if objectives == 2:
        return pi_vector(key)
    weights = [float(part) for part in str(key).split(":") if _KEY.fullmatch(part)]
    if len(weights) != objectives or abs(sum(weights) - 1.0) > 1e-9 or key != preference_key(weights):
        even = preference_key([1.0 / objectives] * objectives)
        raise InputError(
            f"not a preference of {objectives} objectives",
            found=key,
            hint=f'write {objectives} weights with two decimals that sum to 1, for example "{even}"',
        )
    return tuple(weights)


def preference_key(weights: Sequence[float]) -> str:
    """The key of three or more weights that sum to 1, rounded so that they still do: largest remainders go up."""
    hundredths = [int(100.0 * weight + 1e-9) for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: hundredths[i] - 100.0 * weights[i])
    for i in by_remainder[: 100 - sum(hundredths)]:
        hundredths[i] += 1
    return ":".join(f"{part / 100:.2f}" for part in hundredths)


def preferences(keys: Iterable[float | str], objectives: int = 2) -> list[tuple[float, ...]]:
    """The weights of several preferences, as `preference` gives them.

    Raises:
        InputError: no preference, a repeated or an invalid one.
    """
    keys = list(keys)
    if objectives == 2:
        pi_grid(keys)
    elif not keys or len(set(keys)) < len(keys):
        raise InputError("preferences must be one or more, each once", found=keys)
    return [preference(key, objectives) for key in keys]
