"""Cutting a user's events into sessions where nothing happened for a while."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from multitron_core.errors import InputError


def cut_sessions(events: pl.LazyFrame, gap: timedelta) -> pl.LazyFrame:
    """Give each user's events the ids of sessions, which end when nothing happens for longer than `gap`.

    Args:
        events: an event log whose `session_id` is a user's id.
        gap: the longest pause within a session.

    Returns:
        The log sorted by user and time; `session_id` is `<user>@<start of the session, UTC, microseconds>`: the same on
        every run that sees the session's first event.

    Raises:
        InputError: a gap that is not positive.
    """
    if gap <= timedelta(0):
        raise InputError("the inactivity gap is not positive", where="session_gap", found=str(gap), hint="use a pause")
    user, ts = pl.col("session_id"), pl.col("ts")
    starts = (user != user.shift(1)).fill_null(True) | (ts - ts.shift(1) > gap)
    start = pl.when(starts).then(ts).forward_fill()
    return events.sort("session_id", "ts", maintain_order=True).with_columns(
        session_id=user + "@" + start.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    )
