"""What became of the events that were made into sessions: used, or dropped by a rule; as rows, and whether they add up.

Statistics are those of `prepare_sessions` (with `train` and `test`) and of `encode_sessions` (without).
"""

from __future__ import annotations

from typing import Any

import polars as pl

EVENTS = ("clicks", "orders", "carts")


def statistics_rows(statistics: dict[str, Any]) -> pl.DataFrame:
    """Counts as rows.

    Returns:
        `what` (in, used, dropped), `events` (clicks, orders, carts), `rule` (why they were dropped, else empty),
        `count`; of each kind of events, in = used + dropped.
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
    """Kind of events -> how many came in and were neither used nor dropped; empty when everything adds up."""
    signed = pl.when(pl.col("what") == "in").then(pl.col("count")).otherwise(-pl.col("count"))
    left = statistics_rows(statistics).group_by("events", maintain_order=True).agg(signed.sum())
    return {events: count for events, count in left.iter_rows() if count}
