"""Areas and lost shares of fronts that are written out."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitron_core.errors import InputError
from multitron_core.front.decay import LEAST_SESSIONS, decay


def front(clicks: list[float], orders: list[float], pi: tuple[float, ...] = (0.0, 0.5)) -> pl.DataFrame:
    return pl.DataFrame({"pi_order": list(pi), "click_recall_20": clicks, "order_recall_20": orders})


TRAINED = front([0.5, 0.4], [0.3, 0.4])
AREA = 0.5 * 0.3 + 0.4 * 0.1


def test_decay_area_is_that_of_the_staircase() -> None:
    found = decay(TRAINED, TRAINED, known_share=1.0, sessions=LEAST_SESSIONS)
    assert found.area_then == pytest.approx(AREA)
    assert found.lost == pytest.approx(0.0)
    assert not found.beyond(0.01)


@given(st.floats(0.01, 1.0))
def test_decay_of_scaled_recalls_is_quadratic(share: float) -> None:
    smaller = TRAINED.with_columns(pl.col("click_recall_20", "order_recall_20") * share)
    found = decay(TRAINED, smaller, known_share=1.0, sessions=LEAST_SESSIONS)
    assert found.lost == pytest.approx(1 - share**2)
    assert found.beyond(0.2) == (found.lost > 0.2)


def test_decay_counts_unknown_items_as_misses() -> None:
    """Recalls are measured on known items; if half of the clicks are on new items, they are halved."""
    assert decay(TRAINED, TRAINED, known_share=0.5, sessions=LEAST_SESSIONS).lost == pytest.approx(0.75)


def test_beyond_needs_enough_sessions() -> None:
    gone = TRAINED.with_columns(pl.col("click_recall_20", "order_recall_20") * 0.1)
    assert decay(TRAINED, gone, known_share=1.0, sessions=LEAST_SESSIONS).beyond(0.2)
    assert not decay(TRAINED, gone, known_share=1.0, sessions=LEAST_SESSIONS - 1).beyond(0.2)


def test_decay_of_a_larger_front_is_negative() -> None:
    grown = TRAINED.with_columns(pl.col("click_recall_20", "order_recall_20") * 1.1)
    assert decay(TRAINED, grown, known_share=1.0, sessions=LEAST_SESSIONS).lost < 0


def test_decay_without_orders_compares_clicks() -> None:
    unordered = front([0.25, 0.2], [math.nan, math.nan])
    found = decay(TRAINED, unordered, known_share=1.0, sessions=LEAST_SESSIONS)
    assert (found.area_then, found.area_now) == (0.5, 0.25)
    assert found.lost == pytest.approx(0.5)


def test_decay_compares_common_preferences_only() -> None:
    more = front([0.5, 0.4, 0.0], [0.3, 0.4, 0.9], pi=(0.0, 0.5, 1.0))
    assert decay(TRAINED, more, known_share=1.0, sessions=LEAST_SESSIONS).lost == pytest.approx(0.0)


def test_decay_refuses_fronts_that_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="no preference in common"):
        decay(TRAINED, front([0.5, 0.4], [0.3, 0.4], pi=(0.25, 0.75)), known_share=1.0, sessions=LEAST_SESSIONS)
    with pytest.raises(InputError, match="known_share"):
        decay(TRAINED, TRAINED, known_share=1.5, sessions=LEAST_SESSIONS)
    with pytest.raises(InputError, match="no finite metric in common"):
        decay(TRAINED, front([math.nan] * 2, [math.nan] * 2), known_share=1.0, sessions=LEAST_SESSIONS)
