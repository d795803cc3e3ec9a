"""Statistics as rows, and their sums."""

from __future__ import annotations

from typing import Any

from multitron_core.sessions.statistics import statistics_rows, unaccounted

SCORING: dict[str, Any] = {
    "in": {"clicks": 9, "orders": 2, "carts": 3},
    "sessions": 2,
    "clicks": 7,
    "orders": 1,
    "unknown_items": 1,
    "dropped": {
        "carts: not used": 3,
        "clicks: item that the vocabulary does not have": 2,
        "orders: session without known clicks": 1,
    },
}


def test_statistics_rows_have_rules_of_drops() -> None:
    assert statistics_rows(SCORING).rows() == [
        ("in", "clicks", "", 9),
        ("in", "orders", "", 2),
        ("in", "carts", "", 3),
        ("used", "clicks", "", 7),
        ("used", "orders", "", 1),
        ("used", "carts", "", 0),
        ("dropped", "carts", "not used", 3),
        ("dropped", "clicks", "item that the vocabulary does not have", 2),
        ("dropped", "orders", "session without known clicks", 1),
    ]


def test_unaccounted_names_differences() -> None:
    assert unaccounted(SCORING) == {}
    assert unaccounted({**SCORING, "clicks": 6}) == {"clicks": 1}
    parts = {"train": {"sessions": 1, "clicks": 4, "orders": 1}, "test": {"sessions": 1, "clicks": 3, "orders": 1}}
    training = {"in": SCORING["in"], "dropped": SCORING["dropped"], **parts}
    assert unaccounted(training) == {"orders": -1}
