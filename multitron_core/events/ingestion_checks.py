"""Checks of ingested days: counts that add up, an event volume near the usual one, few rejected lines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from multitron_core.errors import InputError
from multitron_core.events.ingestion import read_ingestion
from multitron_core.events.raw_source import LATE_DAYS, days_between
from multitron_core.events.read import HARMLESS_REASONS
from multitron_core.events.tables import scan_table
from multitron_core.lake.tables import Tables

USUAL_DAYS = 28
"""Days before a day that its usual volume is computed from."""

FEWEST_DAYS = 3
"""Minimum number of days that a usual volume is computed from."""


@dataclass(frozen=True)
class Limits:
    """Limits of a normal day's ingestion.

    Args:
        min_volume, max_volume: Smallest and largest normal number of events, relative to the usual number.
        max_share: Largest normal share of rejected lines. It is below the share at which an ingestion is refused.
    """

    min_volume: float = 0.5
    max_volume: float = 2.0
    max_share: float = 0.002

    def __post_init__(self) -> None:
        if not 0 <= self.min_volume <= 1 <= self.max_volume:
            raise InputError(
                "the limits of a day's volume do not include the usual volume",
                found=(self.min_volume, self.max_volume),
                hint="use min_volume of at most 1 and max_volume of at least 1",
            )


def reconciliation(lake: Tables, first: date, last: date) -> pl.DataFrame:
    """Compare the counts of each day with the rows of the tables.

    Args:
        lake: Location of the tables.
        first, last: Days to compare, both included.

    Returns:
        One row per day, and one with a null day for lines of files that do not belong to a single day: `day`; `in`,
        `accepted`, `duplicate`, `rejected` as counted while the files were read; `events` and `rejects`, the numbers of
        rows in these tables; `adds_up`: in = accepted + duplicate + rejected, accepted = events, rejected = rejects,
        and no count is negative.
    """
    kinds = ["in", "accepted", "duplicate", "rejected"]
    counts = (
        read_ingestion(lake, first, last)
        .group_by("day")
        .agg(pl.col("count").filter(pl.col("what") == kind).sum().alias(kind) for kind in kinds)
    )
    for table in ("events", "rejects"):
        days = pl.col("day").is_between(first, last) | pl.col("day").is_null()
        rows = scan_table(lake, table).filter(days).group_by("day").agg(pl.len().cast(pl.Int64).alias(table))
        counts = counts.join(rows.collect(engine="streaming"), on="day", how="full", coalesce=True, nulls_equal=True)
    accepted, duplicate, rejected = (pl.col(kind) for kind in kinds[1:])
    return (
        counts.with_columns(pl.col(*kinds, "events", "rejects").fill_null(0))
        .with_columns(
            adds_up=(pl.col("in") == accepted + duplicate + rejected)
            & (accepted == pl.col("events"))
            & (rejected == pl.col("rejects"))
            & (pl.min_horizontal(*kinds) >= 0)
        )
        .sort("day", nulls_last=True)
    )


def volumes(lake: Tables, first: date, last: date, limits: Limits | None = None) -> pl.DataFrame:
    """Compare the number of events of each day with the usual number.

    The usual number is the median of the same weekday in the four weeks before. If fewer than three of these days were
    ingested, it is the median of all ingested days of these weeks; if those are fewer than three too, it is unknown.

    Args:
        lake: Location of the tables.
        first, last: Days to compare, both included.
        limits: Limits of the volume; the defaults of `Limits` if None.

    Returns:
        One row per day from `first` to `last`: `day`, `events`, `usual` Float64 (null if unknown), `near` (whether the
        volume is within the limits; for an unknown usual volume, whether the day has events).
    """
    limits = limits or Limits()
    counts = read_ingestion(lake, first - timedelta(days=USUAL_DAYS), last).filter(what="accepted")
    events = dict(counts.group_by("day").agg(pl.col("count").sum()).iter_rows())
    rows = []
    for day in days_between(first, last):
        usual = _usual({other: count for other, count in events.items() if 0 < (day - other).days <= USUAL_DAYS}, day)
        found = events.get(day, 0)
        near = found > 0 if usual is None else limits.min_volume * usual <= found <= limits.max_volume * usual
        rows.append((day, found, usual, near))
    schema = {"day": pl.Date, "events": pl.Int64, "usual": pl.Float64, "near": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _usual(before: dict[date, int], day: date) -> float | None:
    same_weekday = [count for other, count in before.items() if other.weekday() == day.weekday()]
    sample = same_weekday if len(same_weekday) >= FEWEST_DAYS else list(before.values())
    return None if len(sample) < FEWEST_DAYS else pl.Series(sample).median()  # type: ignore[return-value]


def reject_shares(lake: Tables, first: date, last: date, limits: Limits | None = None) -> pl.DataFrame:
    """Compute the share of bad lines of each day. Empty lines and unused event types do not count as bad.

    Args:
        lake: Location of the tables.
        first, last: Days of the files, both included.
        limits: Limit of the share; the default of `Limits` if None.

    Returns:
        One row per day of files, or one with a null day if files do not belong to single days: `day`, `lines` (good and
        bad), `bad`, `share`, `few` (whether the share is within the limit).
    """
    limits = limits or Limits()
    bad = (pl.col("what") == "rejected") & ~pl.col("reason").is_in(HARMLESS_REASONS)
    good = pl.col("what").is_in(["accepted", "duplicate"])
    counts = read_ingestion(lake, first - timedelta(days=LATE_DAYS), last + timedelta(days=1))
    if counts["day"].null_count():  # rejects without a day are compared with all lines of the files
        counts = read_ingestion(lake).with_columns(source_day=pl.lit(None, pl.Date))
    else:
        counts = counts.filter(pl.col("source_day").is_between(first, last))
    return (
        counts.group_by(day="source_day")
        .agg(
            lines=pl.col("count").filter(good | bad).sum(),
            bad=pl.col("count").filter(bad).sum(),
        )
        .with_columns(share=(pl.col("bad") / pl.col("lines")).fill_nan(0.0))
        .with_columns(few=pl.col("share") <= limits.max_share)
        .sort("day", nulls_last=True)
    )
