"""Spacing of the preferences of a front."""

from __future__ import annotations

from itertools import pairwise
from math import comb

import pytest

from multitron_core.errors import InputError
from multitron_core.preference.spacing import lattice_preferences, spaced_preferences


def test_spaced_preferences_are_quantiles_of_the_beta() -> None:
    assert spaced_preferences(3) == pytest.approx([0.0, 0.5, 1.0])
    assert spaced_preferences(5, beta=(1.0, 1.0)) == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
    assert all(low < high for low, high in pairwise(spaced_preferences(26, beta=(1.2, 3.0))))


def test_spaced_preferences_by_squares() -> None:
    assert spaced_preferences(3, spacing="square") == [0.0, 0.75, 1.0]


@pytest.mark.parametrize(
    "options", [{"points": 1}, {"spacing": "even"}, {"beta": (0.5, 0.5, 0.5)}, {"beta": (1.2, 0.0)}]
)
def test_spaced_preferences_refuses(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        spaced_preferences(**{"points": 5, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(("objectives", "h"), [(3, 6), (4, 4)])
def test_lattice_preferences_cover_the_simplex(objectives: int, h: int) -> None:
    lattice = lattice_preferences(26, objectives)
    assert len(lattice) == len(set(lattice)) == comb(h + objectives - 1, objectives - 1)
    assert all(sum(weights) == pytest.approx(1.0) for weights in lattice)
    assert sorted(weights for weights in lattice if max(weights) == 1.0) == sorted(
        tuple(float(corner == place) for place in range(objectives)) for corner in range(objectives)
    )
    assert lattice == sorted(lattice, key=lambda weights: weights[::-1])


def test_lattice_preferences_refuses_too_few_points() -> None:
    with pytest.raises(InputError, match=r"each corner.*3 points"):
        lattice_preferences(2, 3)
