"""The canonical event log: Delta tables that raw files are ingested into, day by day.

    events      one row per event, partitioned by `day` (UTC day of the event); an event (session, item, time, type) is
                stored once, with the first file and line that contain it
    rejects     lines that are not events: file, line, reason, text; partitioned by `day` (of the file)
    ingestion   counts: `day`, `source_day`, `what` (in, accepted, duplicate, rejected), `reason`, `count`

`source_day` is the day of the file that contains the event, so that a day can be delivered again, late events included.
Rejects have a null `day` if their files do not belong to single days.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from multitron_core.errors import InputError
from multitron_core.events.formats import ColumnMapping
from multitron_core.events.raw_source import RawSource, days_between
from multitron_core.events.read import check_orders, check_reject_share, read_files, translate_read_errors
from multitron_core.events.tables import (
    INGESTION_SCHEMA,
    REJECTS_SCHEMA,
    create_event_log,
    days_predicate,
    item_type_of,
    scan_table,
    write_table,
)
from multitron_core.lake.tables import Tables
from multitron_core.utils.temporary_folder import temporary_folder

__all__ = ["IngestionReport", "ingest", "read_event_log", "read_ingestion"]

LOG_COLUMNS = ("session_id", "item_id", "ts", "event_type", "file", "line")
_IDENTITY = ("session_id", "item_id", "ts", "event_type")

ROWS_IN_MEMORY = 4_000_000
"""Maximum number of one day's events in memory; a larger day is processed in slices of its sessions."""


@dataclass(frozen=True)
class IngestionReport:
    """Result of an ingestion.

    Args:
        first, last: Days whose files were ingested, both included.
        events: Number of events in the log that come from these files.
        counts: `{"in": n, "accepted": {type: n}, "duplicate": n, "rejected": {reason: n}, "late": n}`;
            in = accepted + duplicate + rejected. `late` counts the accepted events that belong to other days.
        late_days: Days outside `first` to `last` whose events changed. Everything computed from them is out of date.
        repeated_days: Days whose files must be ingested again, because they repeat events that this ingestion removed.
        files: Number of files that were read.
    """

    first: date
    last: date
    events: int
    counts: dict[str, Any]
    late_days: list[date]
    repeated_days: list[date]
    files: int


def ingest(
    source: RawSource, lake: Tables, first: date, last: date, *, rows_in_memory: int = ROWS_IN_MEMORY
) -> IngestionReport:
    """Ingest the files of some days into the event log, and replace the events that these files contained before.

    The events of all days change in one commit, so readers see either all changes or none. Ingesting the same files
    again changes nothing, and days may be ingested in any order.

    Args:
        source: The raw files.
        lake: Location of the tables; missing tables are created.
        first, last: Days to ingest, both included. With `source.files`, the files of these days are read and late
            events go to the day they belong to. Without, all files are read and the events of these days are kept.
        rows_in_memory: Maximum number of one day's events in memory.

    Raises:
        InputError: There is nothing to read, a day has too many rejects, or the type of the item ids differs from the
            log's.
        UnavailableError: A day has no file yet, or another ingestion of the same day committed first.
    """
    files, day_of_file = source.find(first, last)
    check_orders(files, source.format, orders_required=source.orders_required, where=source.path)
    with temporary_folder("ingestion") as folder:
        stage = _stage(source, lake, files, day_of_file, (first, last), Path(folder))
        create_event_log(lake, stage.item_type)
        return _replace(lake, stage, (first, last), rows_in_memory, files=sum(map(len, files.values())))


def read_event_log(lake: Tables, first: date | None = None, last: date | None = None) -> pl.LazyFrame:
    """Read the events from day `first` to day `last` (UTC, both included; None for no bound).

    Returns:
        Lazy frame with `session_id`, `item_id`, `ts`, `event_type`, `file`, `line`.

    Raises:
        InputError: Nothing has been ingested.
    """
    if not lake.exists("events"):
        raise InputError("there is no event log", where=lake.uri("events"), hint="ingest raw events first")
    events = scan_table(lake, "events")
    if first is not None:
        events = events.filter(pl.col("day") >= first)
    if last is not None:
        events = events.filter(pl.col("day") <= last)
    return events.select(LOG_COLUMNS)


def read_ingestion(lake: Tables, first: date | None = None, last: date | None = None) -> pl.DataFrame:
    """Read the counts of the days from `first` to `last` (None for no bound) and those of files without a day.

    Returns:
        `day`, `source_day`, `what` (in, accepted, duplicate, rejected), `reason` (the event type of accepted events, or
        the reason of rejected lines), `count`. For each day and source day, in = accepted + duplicate + rejected.

    Raises:
        InputError: Nothing has been ingested.
    """
    if not lake.exists("ingestion"):
        raise InputError("there is no event log", where=lake.uri("ingestion"), hint="ingest raw events first")
    in_range = pl.lit(True)
    if first is not None:
        in_range &= pl.col("day") >= first
    if last is not None:
        in_range &= pl.col("day") <= last
    return scan_table(lake, "ingestion").filter(in_range | pl.col("day").is_null()).collect()


@dataclass(frozen=True)
class _Stage:
    """Parsed files on the local disk.

    Args:
        folder: Folder with the events, in one subfolder of `events/` per day.
        rejects: The rejected lines, columns of `REJECTS_SCHEMA`.
        read_counts: Numbers of events read: `day`, `source_day`, `count`.
        item_type: Type of the item ids.
        source_days: Days of the files; None if the files do not belong to single days.
    """

    folder: Path
    rejects: pl.DataFrame
    read_counts: pl.DataFrame
    item_type: pl.DataType
    source_days: list[date] | None

    def events(self, day: date) -> pl.LazyFrame | None:
        """Events of a day; None if the files contain none."""
        paths = sorted((self.folder / "events" / f"day={day.isoformat()}").glob("*.parquet"))
        return pl.scan_parquet(paths).with_columns(day=pl.lit(day)) if paths else None

    def from_these_files(self) -> pl.Expr:
        """Whether a row of the log comes from the files of this stage."""
        return pl.lit(True) if self.source_days is None else pl.col("source_day").is_in(self.source_days)


def _stage(
    source: RawSource,
    lake: Tables,
    files: dict[str, Any],
    day_of_file: dict[str, date] | None,
    days: tuple[date, date],
    folder: Path,
) -> _Stage:
    """Parse the files once onto the local disk, and check the share of rejects."""
    log = read_files(
        files, source.format, columns=_fixed_item_type(source, lake), cut=False, storage_options=source.storage_options
    )
    events, rejects = log.events.with_columns(day=pl.col("ts").dt.date()), log.rejects
    if day_of_file is None:
        all_events = events.group_by(source_day=pl.lit(None, pl.Date)).len()
        events = events.filter(pl.col("day").is_between(*days)).with_columns(source_day=pl.col("day"))
        rejects = rejects.with_columns(day=pl.lit(None, pl.Date))
    else:
        schema = {"file": pl.String, "source_day": pl.Date}
        source_days = pl.LazyFrame(list(day_of_file.items()), schema=schema, orient="row")
        events = events.join(source_days, on="file", how="left", maintain_order="left")
        is_distant = ~(pl.col("day") - pl.col("source_day")).dt.total_days().is_between(-source.max_late_days, 1)
        distant = events.filter(is_distant).select(
            "file",
            "line",
            pl.lit("time is far from the day of the file").alias("reason"),
            pl.concat_str("session_id", "item_id", pl.col("ts").cast(pl.String), "event_type", separator=" ").alias(
                "text"
            ),
        )
        rejects = pl.concat([rejects, distant]).join(source_days, on="file", how="left").rename({"source_day": "day"})
        events = events.filter(~is_distant)
        all_events = events.group_by("source_day").len()
    partitions = pl.PartitionBy(folder / "events", key="day", include_key=False)
    (folder / "events").mkdir()
    with translate_read_errors():
        _, rejected, accepted = pl.collect_all(
            [events.sink_parquet(partitions, compression="lz4", mkdir=True, lazy=True), rejects, all_events],
            engine="streaming",
        )
    _check_reject_shares(source, rejected, dict(accepted.iter_rows()))
    staged = sorted((folder / "events").glob("day=*/*.parquet"))
    item_type = events.collect_schema()["item_id"]
    read_counts = pl.DataFrame(schema={name: INGESTION_SCHEMA[name] for name in ("day", "source_day", "count")})
    if staged:
        scan = pl.scan_parquet(staged, hive_partitioning=True, hive_schema={"day": pl.Date})
        read_counts = scan.group_by("day", "source_day").agg(count=pl.len().cast(pl.Int64)).collect(engine="streaming")
    days_of_files = None if day_of_file is None else sorted(set(day_of_file.values()))
    return _Stage(folder, rejected.select(REJECTS_SCHEMA.names()), read_counts, item_type, days_of_files)


def _fixed_item_type(source: RawSource, lake: Tables) -> ColumnMapping | None:
    """Column mapping of the source; once a log exists, its item type replaces the automatic choice per day."""
    mapping = source.mapping or ColumnMapping()
    if source.format != "table" or mapping.item_type != "auto" or not lake.exists("events"):
        return source.mapping
    return dataclasses.replace(mapping, item_type="integer" if item_type_of(lake) == pl.Int64 else "string")


def _check_reject_shares(source: RawSource, rejects: pl.DataFrame, accepted: dict[date | None, int]) -> None:
    """Refuse a delivery if one of its days has too many rejects.

    The share is checked per day, because one bad day does not show in the share of a month. The error names the
    earliest such day; the engine gives the rejects in no particular order.
    """
    for (day,), bad in rejects.sort("day").partition_by("day", as_dict=True).items():
        check_reject_share(
            accepted.get(day, 0),
            dict(bad["reason"].value_counts().iter_rows()),
            bad.sort("file", "line"),
            max_share=source.max_reject_share,
            where=f"{source.path}{'' if day is None else f', files of {day}'}",
        )


def _replace(
    lake: Tables, stage: _Stage, days: tuple[date, date], rows_in_memory: int, *, files: int
) -> IngestionReport:
    """Write the staged rows into the tables: rejects first, then events, counts last."""
    affected = _affected_days(lake, stage, days)
    stage_days: list[date | None] = [None] if stage.source_days is None else [*stage.source_days]
    write_table(lake, "rejects", days_predicate(stage_days), lambda _: iter([stage.rejects]))
    changed: set[date] = set()
    repeated: set[date] = set()
    counts_before = scan_table(lake, "ingestion").filter(pl.col("day").is_in(affected)).collect()

    def event_frames(current: pl.LazyFrame) -> Iterator[pl.DataFrame]:
        changed.clear()
        repeated.clear()
        for day in affected:
            rows = _rows(current, stage, day)
            slices = max(1, -(-rows // rows_in_memory))
            for number in range(slices):
                kept, new, vanished = _merge_day(current, stage, day, slices, number)
                if new or vanished:
                    changed.add(day)
                if vanished:
                    repeated.update(_repeating_days(counts_before, stage, day))
                yield kept

    write_table(lake, "events", days_predicate([*affected]), event_frames)
    statistics: list[pl.DataFrame] = []

    def statistics_frames(current: pl.LazyFrame) -> Iterator[pl.DataFrame]:
        # Computed again after a conflict with another ingestion, and before the stream starts, because the stream must
        # not open a table (`write_table`).
        statistics[:] = [_statistics(lake, stage, affected, current)]
        return iter(statistics)

    write_table(lake, "ingestion", days_predicate(list(dict.fromkeys([*affected, *stage_days]))), statistics_frames)
    from_files = statistics[0].filter(stage.from_these_files() | pl.col("source_day").is_null())
    late = from_files.filter(pl.col("what") == "accepted", ~pl.col("day").is_between(*days))
    accepted = _by_reason(from_files, "accepted")
    return IngestionReport(
        *days,
        events=sum(accepted.values()),
        counts={
            "in": _total(from_files, "in"),
            "accepted": accepted,
            "duplicate": _total(from_files, "duplicate"),
            "rejected": _by_reason(from_files, "rejected"),
            "late": int(late["count"].sum()),
        },
        late_days=sorted(changed - set(days_between(*days))),
        repeated_days=sorted(repeated),
        files=files,
    )


def _affected_days(lake: Tables, stage: _Stage, days: tuple[date, date]) -> list[date]:
    """Days whose partitions change: the requested days, and the days that contain or contained late events."""
    affected = {*days_between(*days), *stage.read_counts["day"].to_list()}
    if stage.source_days is not None:
        in_log = scan_table(lake, "events").filter(stage.from_these_files()).select("day").unique()
        affected |= set(in_log.collect(engine="streaming")["day"])
    return sorted(affected)


def _rows(events: pl.LazyFrame, stage: _Stage, day: date) -> int:
    """Number of events of a day in the log and in the stage together."""
    staged = int(stage.read_counts.filter(day=day)["count"].sum())
    return staged + events.filter(pl.col("day") == day).select(pl.len()).collect().item()


def _merge_day(
    events: pl.LazyFrame, stage: _Stage, day: date, slices: int, number: int
) -> tuple[pl.DataFrame, int, int]:
    """Merge a slice of a day's events.

    Returns:
        The new rows of the slice; the number of events that were not in the log; the number of events of these files
        that are no longer in it.
    """
    in_slice = pl.lit(True) if slices == 1 else pl.col("session_id").hash() % slices == number
    current = events.filter(pl.col("day") == day).filter(in_slice).collect()
    parts = [current.filter(~stage.from_these_files())]
    staged = stage.events(day)
    if staged is not None:
        parts.append(staged.filter(in_slice).select(current.columns).collect())
    # Sorting puts the events of a session together; of equal events, the first line of the first file is kept.
    rows = pl.concat(parts).sort("session_id", "ts", "file", "line", maintain_order=True)
    kept = rows.filter(pl.struct(_IDENTITY).is_first_distinct())
    vanished = current.filter(stage.from_these_files()).join(kept, on=_IDENTITY, how="anti")
    return kept, len(kept) - len(current) + len(vanished), len(vanished)  # events are distinct before and after


def _repeating_days(counts_before: pl.DataFrame, stage: _Stage, day: date) -> list[date]:
    """Source days of other files that repeat events of `day` and whose copies were not kept."""
    repeats = counts_before.filter(~stage.from_these_files(), day=day, what="duplicate")
    return repeats["source_day"].drop_nulls().to_list()


def _statistics(lake: Tables, stage: _Stage, affected: list[date], current: pl.LazyFrame) -> pl.DataFrame:
    """Compute the rows of `ingestion` for the affected days, from all files that contain their events.

    `in` is counted when files are parsed. Accepted events and rejects are counted from the rows of their tables, and
    duplicates are the difference.
    """
    key = ["day", "source_day"]
    in_days = pl.col("day").is_in(affected)
    if stage.source_days is None:
        in_days |= pl.col("day").is_null()
    rejected = (
        scan_table(lake, "rejects")
        .filter(in_days)
        .group_by("day", "reason")
        .agg(count=pl.len().cast(pl.Int64))
        .with_columns(source_day=pl.col("day"), what=pl.lit("rejected"))
        .collect()
    )
    accepted = (
        scan_table(lake, "events")
        .filter(pl.col("day").is_in(affected))
        .group_by(*key, reason="event_type")
        .agg(count=pl.len().cast(pl.Int64))
        .collect(engine="streaming")
    )
    earlier = current.filter(in_days, pl.col("what") == "in", ~stage.from_these_files()).collect()
    new_rejects = stage.rejects.group_by("day").agg(count=pl.len().cast(pl.Int64)).with_columns(source_day="day")
    total_in = (
        pl.concat(
            [earlier.select(*key, "count"), stage.read_counts.select(*key, "count"), new_rejects.select(*key, "count")]
        )
        .group_by(key)
        .agg(pl.col("count").sum())
    )
    known = pl.concat([rejected.select(*key, "count"), accepted.select(*key, "count")])
    duplicates = (
        total_in.join(known.group_by(key).agg(known=pl.col("count").sum()), on=key, how="left", nulls_equal=True)
        .with_columns(count=pl.col("count") - pl.col("known").fill_null(0))
        .filter(pl.col("count") > 0)
    )
    parts = {"in": total_in, "accepted": accepted, "duplicate": duplicates, "rejected": rejected}
    rows = [part.with_columns(what=pl.lit(what)) for what, part in parts.items()]
    all_rows = pl.concat(
        [row if "reason" in row.columns else row.with_columns(reason=pl.lit("")) for row in rows], how="diagonal"
    )
    names = INGESTION_SCHEMA.names()
    return all_rows.select(pl.col(name).cast(INGESTION_SCHEMA[name]) for name in names).sort(names[:4])


def _total(statistics: pl.DataFrame, what: str) -> int:
    return int(statistics.filter(what=what)["count"].sum())


def _by_reason(statistics: pl.DataFrame, what: str) -> dict[str, int]:
    counts = statistics.filter(what=what).group_by("reason").agg(pl.col("count").sum()).sort("reason")
    return dict(counts.select("reason", "count").iter_rows())
