"""The preference vector pi = [pi_click, pi_order] and its key, a string.

The key is used as partition value, column value and file name. It is the weight on orders with two decimals, "0.00" to
"1.00". A float as Delta partition value became `0.30000000000000004`, and some readers do not support decimals.

Tables and nightly scoring support two objectives only. For models with more objectives, training and evaluation write
a preference as all its weights, separated by colons: "0.20:0.30:0.50".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from multitron_core.errors import InputError

DEFAULT_GRID: tuple[str, ...] = ("0.00", "0.25", "0.50", "0.75", "1.00")
"""Preferences that a night scores by default."""

_KEY = re.compile(r"0\.\d\d|1\.00")


def pi_key(pi_order: float | str) -> str:
    """Key of a preference between clicks and orders.

    Args:
        pi_order: The weight on orders, a multiple of 0.01 in [0, 1]; or a key, which is checked and returned.

    Returns:
        "0.00" to "1.00".

    Raises:
        InputError: Not a number, outside [0, 1], or with more than two decimals.
    """
    if isinstance(pi_order, str):
        if not _KEY.fullmatch(pi_order):
            raise InputError(
                "not a pi key", found=pi_order, hint='use the weight on orders with two decimals, "0.00" to "1.00"'
            )
        return pi_order
    if not 0.0 <= pi_order <= 1.0:  # also refuses NaN
        raise InputError("pi_order lies outside [0, 1]", found=pi_order, hint="use a weight between 0 and 1")
    key = f"{abs(pi_order):.2f}"  # abs: -0.0 has the key "0.00" too
    if abs(float(key) - pi_order) > 1e-9:
        raise InputError("pi_order has more than two decimals", found=pi_order, hint=f"round it, for example to {key}")
    return key


def pi_vector(key: float | str) -> tuple[float, float]:
    """Weights (pi_click, pi_order) of a key, each the double nearest to two decimals that sum to 1.

    Raises:
        InputError: See `pi_key`.
    """
    pi_order = float(pi_key(key))
    return round(1.0 - pi_order, 2), pi_order


def pi_grid(keys: Iterable[float | str]) -> tuple[str, ...]:
    """Check a grid of preferences.

    Args:
        keys: Keys or weights on orders, in any order.

    Returns:
        The keys in ascending order.

    Raises:
        InputError: The grid is empty, or contains an invalid or a repeated preference.
    """
    grid = [pi_key(key) for key in keys]
    if not grid:
        raise InputError("the pi grid is empty", hint=f"use at least one preference, for example {DEFAULT_GRID}")
    repeated = sorted({key for key in grid if grid.count(key) > 1})
    if repeated:
        raise InputError("the pi grid contains a preference twice", found=repeated, hint="list each preference once")
    return tuple(sorted(grid))


def preference(key: float | str, objectives: int = 2) -> tuple[float, ...]:
    """Weights of a preference for a model with any number of objectives.

    Args:
        key: For two objectives an argument of `pi_vector`. For more, all weights with two decimals, separated by
            colons, for example "0.20:0.30:0.50".
        objectives: Number of objectives of the model.

    Returns:
        One weight per objective; they sum to 1.

    Raises:
        InputError: Not a preference of this number of objectives.
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
    """Key of three or more weights that sum to 1.

    The weights are rounded to two decimals so that their sum remains 1 (largest remainder method).

    Args:
        weights: One weight per objective.
    """
    hundredths = [int(100.0 * weight + 1e-9) for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: hundredths[i] - 100.0 * weights[i])
    for i in by_remainder[: 100 - sum(hundredths)]:
        hundredths[i] += 1
    return ":".join(f"{part / 100:.2f}" for part in hundredths)


def preferences(keys: Iterable[float | str], objectives: int = 2) -> list[tuple[float, ...]]:
    """Weights of several preferences, each as `preference` returns them.

    Raises:
        InputError: There is no preference, or an invalid or repeated one.
    """
    keys = list(keys)
    if objectives == 2:
        pi_grid(keys)
    elif not keys or len(set(keys)) < len(keys):
        raise InputError("the preferences must be one or more, without repeats", found=keys)
    return [preference(key, objectives) for key in keys]
