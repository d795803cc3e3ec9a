"""Keys, vectors and grids of preferences."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitron_core.errors import InputError
from multitron_core.preference.keys import pi_grid, pi_key, pi_vector, preference, preference_key, preferences


@given(st.integers(0, 100))
def test_pi_key_and_pi_vector_are_inverse(hundredths: int) -> None:
    key = pi_key(hundredths / 100)
    assert key == f"{hundredths // 100}.{hundredths % 100:02d}"
    pi_click, pi_order = pi_vector(key)
    assert pi_key(pi_order) == key
    assert math.isclose(pi_click + pi_order, 1.0, abs_tol=1e-12)


@pytest.mark.parametrize(
    "wrong", [-0.01, 1.01, math.nan, math.inf, 0.333, "0.5", "0,50", "1.01", "", "0.50' OR '1'='1"]
)
def test_pi_key_refuses_other_values(wrong: float | str) -> None:
    with pytest.raises(InputError) as refusal:
        pi_key(wrong)
    assert repr(wrong) in str(refusal.value)
    assert "hint" in str(refusal.value)


def test_pi_key_of_minus_zero_is_that_of_zero() -> None:
    """A computed weight may be -0.0; a different key would name a partition that readers never ask for."""
    assert pi_key(-0.0) == "0.00"


def test_pi_grid_sorts_and_refuses_repeats() -> None:
    assert pi_grid([1.0, "0.00", 0.5]) == ("0.00", "0.50", "1.00")
    with pytest.raises(InputError, match=r"twice.*0\.50"):
        pi_grid(["0.50", 0.5])
    with pytest.raises(InputError, match="empty"):
        pi_grid([])


def test_preference_of_two_and_of_three_objectives() -> None:
    assert preference("0.25") == (0.75, 0.25)
    assert preference(0.25) == (0.75, 0.25)
    assert preference("0.20:0.30:0.50", 3) == (0.2, 0.3, 0.5)


@pytest.mark.parametrize("key", ["0.50", "0.50:0.50", "0.50:0.50:0.50", "0.5:0.2:0.3", "0.20:0.30:0.50:"])
def test_preference_refuses_other_keys(key: str) -> None:
    with pytest.raises(InputError, match=r"not a preference of 3 objectives.*0\.34:0\.33:0\.33"):
        preference(key, 3)


@given(st.lists(st.integers(1, 100), min_size=3, max_size=5))
def test_preference_key_sums_to_one(parts: list[int]) -> None:
    weights = [part / sum(parts) for part in parts]
    found = preference(preference_key(weights), len(parts))
    assert all(abs(weight - part) < 0.01 for weight, part in zip(weights, found, strict=True))


def test_preferences_refuses_none_and_repeats() -> None:
    assert preferences(["0.00", 1.0]) == [(1.0, 0.0), (0.0, 1.0)]
    assert preferences(["0.20:0.30:0.50"], 3) == [(0.2, 0.3, 0.5)]
    wrong: list[tuple[list[float | str], int]] = [([], 2), (["0.50", 0.5], 2), ([], 3), (["0.20:0.30:0.50"] * 2, 3)]
    for keys, objectives in wrong:
        with pytest.raises(InputError):
            preferences(keys, objectives)
