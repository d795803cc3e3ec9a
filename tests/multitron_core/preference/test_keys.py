from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitron_core.errors import InputError
from multitron_core.preference.keys import pi_grid, pi_key, pi_vector


@given(st.integers(0, 100))
def test_a_key_and_its_vector_belong_together(hundredths: int) -> None:
    key = pi_key(hundredths / 100)
    assert key == f"{hundredths // 100}.{hundredths % 100:02d}"
    pi_click, pi_order = pi_vector(key)
    assert pi_key(pi_order) == key
    assert math.isclose(pi_click + pi_order, 1.0, abs_tol=1e-12)


@pytest.mark.parametrize(
    "wrong", [-0.01, 1.01, math.nan, math.inf, 0.333, "0.5", "0,50", "1.01", "", "0.50' OR '1'='1"]
)
def test_what_is_no_preference_is_refused_with_its_value(wrong: float | str) -> None:
    with pytest.raises(InputError) as refusal:
        pi_key(wrong)
    assert repr(wrong) in str(refusal.value)
    assert "hint" in str(refusal.value)


def test_a_grid_rises_and_repeats_nothing() -> None:
    assert pi_grid([1.0, "0.00", 0.5]) == ("0.00", "0.50", "1.00")
    with pytest.raises(InputError, match=r"twice.*0\.50"):
        pi_grid(["0.50", 0.5])
    with pytest.raises(InputError, match="empty"):
        pi_grid([])


def test_minus_zero_has_the_key_of_zero() -> None:
    """A float that is computed may be one; as a key of its own it would be a partition that nobody reads."""
    assert pi_key(-0.0) == "0.00"
