"""Sessions of logs that identify users only: a user's events are split at long pauses."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from multitron_core.errors import InputError


def cut_sessions(events: pl.LazyFrame, gap: timedelta) -> pl.LazyFrame:
    """Split each user's events into sessions. A session ends when the user has no event for longer than `gap`.

    Args:
        events: Event log whose `session_id` is the id of a user.
        gap: Longest pause within a session.

    Returns:
        The log sorted by user and time. `session_id` is `<user>@<start of the session, UTC, microseconds>`. Every run
        that reads the session's first event gives it the same id.

    Raises:
        InputError: `gap` is not positive.
    """
    if gap <= timedelta(0):
        raise InputError(
            "the inactivity gap is not positive", where="session_gap", found=str(gap), hint="use a positive duration"
        )
    user, ts = pl.col("session_id"), pl.col("ts")
    is_start = (user != user.shift(1)).fill_null(True) | (ts - ts.shift(1) > gap)
    start = pl.when(is_start).then(ts).forward_fill()
    return events.sort("session_id", "ts", maintain_order=True).with_columns(
        session_id=user + "@" + start.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    )
