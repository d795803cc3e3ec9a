"""Whether what was ingested looks right: counts that add up, a volume near the usual, few rejected lines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from multitron_core.errors import InputError
from multitron_core.events.ingestion import read_ingestion
from multitron_core.events.raw_source import LATE_DAYS, days_between
from multitron_core.events.read import HARMLESS_REASONS
from multitron_core.events.tables import Tables, scan_table

USUAL_DAYS = 28
FEWEST_DAYS = 3  # of fewer, nobody can say what is usual


@dataclass(frozen=True)
class Limits:
    """When a day's ingestion looks wrong."""

    min_volume: float = 0.5  # of a usual day's events
    max_volume: float = 2.0
    max_share: float = 0.002  # of rejected lines; below the share at which an ingestion is refused

    def __post_init__(self) -> None:
        if not 0 <= self.min_volume <= 1 <= self.max_volume:
            raise InputError(
                "the limits of a day's volume do not enclose the usual",
                found=(self.min_volume, self.max_volume),
                hint="use min_volume of at most 1 and max_volume of at least 1",
            )


def reconciliation(lake: Tables, first: date, last: date) -> pl.DataFrame:
    """What was counted of each day, beside what stands in the tables.

    Args:
        lake: where the tables are.
        first, last: the days, both included.

    Returns:
        A row a day, and one of null for lines of files that are not one day's: `day`; `in`, `accepted`, `duplicate`,
        `rejected` as counted while the files were read; `events`, `rejects`, the rows of these tables;
        `adds_up`: in = accepted + duplicate + rejected, accepted = events, rejected = rejects, nothing negative.
    """
    kinds = ["in", "accepted", "duplicate", "rejected"]
    counted = (
        read_ingestion(lake, first, last)
        .group_by("day")
        .agg(pl.col("count").filter(pl.col("what") == kind).sum().alias(kind) for kind in kinds)
    )
    for table in ("events", "rejects"):
        days = pl.col("day").is_between(first, last) | pl.col("day").is_null()
        rows = scan_table(lake, table).filter(days).group_by("day").agg(pl.len().cast(pl.Int64).alias(table))
        counted = counted.join(rows.collect(engine="streaming"), on="day", how="full", coalesce=True, nulls_equal=True)
    accepted, duplicate, rejected = (pl.col(kind) for kind in kinds[1:])
    return (
        counted.with_columns(pl.col(*kinds, "events", "rejects").fill_null(0))
        .with_columns(
            adds_up=(pl.col("in") == accepted + duplicate + rejected)
            & (accepted == pl.col("events"))
            & (rejected == pl.col("rejects"))
            & (pl.min_horizontal(*kinds) >= 0)
        )
        .sort("day", nulls_last=True)
    )


def volumes(lake: Tables, first: date, last: date, limits: Limits | None = None) -> pl.DataFrame:
    """The events of each day beside a usual day's.

    Usual is the median of the same weekday in the four weeks before, or, where fewer than three of these were ingested,
    of all days of these weeks; nothing where they are fewer than three too.

    Returns:
        A row a day from `first` to `last`: `day`, `events`, `usual` Float64 (null: nobody can say), `near`.
    """
    limits = limits or Limits()
    counted = read_ingestion(lake, first - timedelta(days=USUAL_DAYS), last).filter(what="accepted")
    events = dict(counted.group_by("day").agg(pl.col("count").sum()).iter_rows())
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
    """The share of bad lines of each day; empty lines and event types that are not used are none.

    Returns:
        A row a day of files, and one of null where files are not one day's each: `day`, `lines` (good and bad), `bad`,
        `share`, `few`.
    """
    limits = limits or Limits()
    bad = (pl.col("what") == "rejected") & ~pl.col("reason").is_in(HARMLESS_REASONS)
    good = pl.col("what").is_in(["accepted", "duplicate"])
    counted = read_ingestion(lake, first - timedelta(days=LATE_DAYS), last + timedelta(days=1))
    if counted["day"].null_count():  # these lines stand against all that the files gave
        counted = read_ingestion(lake).with_columns(source_day=pl.lit(None, pl.Date))
    else:
        counted = counted.filter(pl.col("source_day").is_between(first, last))
    return (
        counted.group_by(day="source_day")
        .agg(
            lines=pl.col("count").filter(good | bad).sum(),
            bad=pl.col("count").filter(bad).sum(),
        )
        .with_columns(share=(pl.col("bad") / pl.col("lines")).fill_nan(0.0))
        .with_columns(few=pl.col("share") <= limits.max_share)
        .sort("day", nulls_last=True)
    )
