"""Numbers of events used and dropped in session preparation, as rows of a table, and a check that they add up.

Both functions take the statistics of `prepare_sessions` (with `train` and `test`) or of `encode_sessions` (without).
"""

from __future__ import annotations

from typing import Any

import polars as pl

EVENTS = ("clicks", "orders", "carts")
"""Kinds of events, in the order of the rows."""


def statistics_rows(statistics: dict[str, Any]) -> pl.DataFrame:
    """Convert statistics to one row per count.

    Returns:
        `what` (in, used, dropped), `events` (clicks, orders, carts), `rule` (reason of a drop, otherwise empty),
        `count`. For each kind of events, in = used + dropped.
    """
    rows = [("in", events, "", statistics["in"][events]) for events in EVENTS]
    parts = [statistics[part] for part in ("train", "test")] if "train" in statistics else [statistics]
    rows += [("used", events, "", sum(part.get(events, 0) for part in parts)) for events in EVENTS]
    for reason, count in statistics["dropped"].items():
        events, _, rule = reason.partition(": ")
        rows.append(("dropped", events, rule, count))
    return pl.DataFrame(
        rows, schema={"what": pl.String, "events": pl.String, "rule": pl.String, "count": pl.Int64}, orient="row"
    )


def unaccounted(statistics: dict[str, Any]) -> dict[str, int]:
    """Kind of events -> number of events neither used nor dropped; empty if all counts add up."""
    signed = pl.when(pl.col("what") == "in").then(pl.col("count")).otherwise(-pl.col("count"))
    left = statistics_rows(statistics).group_by("events", maintain_order=True).agg(signed.sum())
    return {events: count for events, count in left.iter_rows() if count}
