"""Users split into sessions at long pauses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.events.formats.format import TIME
from multitron_core.events.sessionize import cut_sessions

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_cut_sessions_splits_after_pauses_above_gap() -> None:
    log = pl.DataFrame(
        [(user, item, NOON + timedelta(minutes=minute)) for user, item, minute in [
            ("u", 3, 61), ("v", 1, 0), ("u", 1, 0), ("u", 2, 30), ("u", 4, 91),
        ]],
        schema={"session_id": pl.String, "item_id": pl.Int64, "ts": TIME},
        orient="row",
    )  # fmt: skip
    sessions = cut_sessions(log.lazy(), timedelta(minutes=30)).collect()
    assert sessions.select("session_id", "item_id").rows() == [
        ("u@2026-01-01T12:00:00.000000Z", 1),
        ("u@2026-01-01T12:00:00.000000Z", 2),
        ("u@2026-01-01T13:01:00.000000Z", 3),
        ("u@2026-01-01T13:01:00.000000Z", 4),
        ("v@2026-01-01T12:00:00.000000Z", 1),
    ]


def test_cut_sessions_refuses_gap_that_is_not_positive() -> None:
    with pytest.raises(InputError, match="gap is not positive"):
        cut_sessions(pl.LazyFrame(), timedelta(0))
