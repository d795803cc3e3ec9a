"""The canonical event log: Delta tables that raw files are ingested into, a day at a time.

    events      one row an event, partitioned by `day` (UTC day of the event); the same event (session, item, time,
                type) stands once, as the first file and line that brought it
    rejects     lines that are no events: file, line, reason, text; partitioned by `day` (the file's)
    ingestion   what was counted: `day`, `source_day`, `what` (in, accepted, duplicate, rejected), `reason`, `count`

`source_day` is the day of the file that an event came in, so that a day can be delivered again, late events included.
A `day` of null belongs to rejects of files that are not one day's each.
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
from multitron_core.events.read import check_orders, check_reject_share, read_files, reading
from multitron_core.events.tables import (
    EVENT_SCHEMA,
    INGESTION_SCHEMA,
    REJECTS_SCHEMA,
    Tables,
    create_event_log,
    exists_table,
    in_days,
    item_type_of,
    scan_table,
    write_table,
)
from multitron_core.utils.temporary_folder import temporary_folder

__all__ = [
    "EVENT_SCHEMA",
    "IngestionReport",
    "RawSource",
    "create_event_log",
    "ingest",
    "read_event_log",
    "read_ingestion",
]

LOG_COLUMNS = ("session_id", "item_id", "ts", "event_type", "file", "line")
_IDENTITY = ("session_id", "item_id", "ts", "event_type")

ROWS_IN_MEMORY = 4_000_000
"""Events of a day that are held at once; a larger day is done in slices of its sessions."""


@dataclass(frozen=True)
class IngestionReport:
    """What an ingestion did.

    Args:
        first, last: the days whose files were ingested.
        events: events of these files that stand in the log.
        counts: `{"in": n, "accepted": {type: n}, "duplicate": n, "rejected": {reason: n}, "late": n}`;
            in = accepted + duplicate + rejected. `late` are those of the accepted that belong to other days.
        late_days: days outside `first` to `last` whose events have changed: what was made from them must be redone.
        repeated_days: days whose files must be ingested again, because they repeat events that vanished.
        files: how many were read.
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
    """Ingest the files of some days into the event log; what these files brought before is replaced.

    The events of all days change in one commit: readers see all of them or none. Ingesting the same files again changes
    nothing, and the order in which days are ingested does not matter.

    Args:
        source: the raw files.
        lake: where the tables are; they are created when they are missing.
        first, last: the days, both included. With `source.files` these are the files of these days, and late events go
            to the day they belong to; without, the events of these days out of all files.
        rows_in_memory: events held at once.

    Raises:
        InputError: nothing to read, too many rejects of a day, items of another type than the log's.
        UnavailableError: a day has no file yet; another ingestion of the same day was faster.
    """
    files, day_of_file = source.find(first, last)
    check_orders(files, source.format, orders_required=source.orders_required, where=source.path)
    with temporary_folder("ingestion") as folder:
        stage = _stage(source, lake, files, day_of_file, (first, last), Path(folder))
        create_event_log(lake, stage.item_type)
        return _replace(lake, stage, (first, last), rows_in_memory, files=sum(map(len, files.values())))


def read_event_log(lake: Tables, first: date | None = None, last: date | None = None) -> pl.LazyFrame:
    """The events from day `first` to day `last` (UTC, both included; None is open), lazily.

    Returns:
        `session_id`, `item_id`, `ts`, `event_type`, `file`, `line`.

    Raises:
        InputError: nothing has been ingested.
    """
    if not exists_table(lake, "events"):
        raise InputError("there is no event log", where=lake.uri("events"), hint="ingest raw events first")
    events = scan_table(lake, "events")
    if first is not None:
        events = events.filter(pl.col("day") >= first)
    if last is not None:
        events = events.filter(pl.col("day") <= last)
    return events.select(LOG_COLUMNS)


def read_ingestion(lake: Tables, first: date | None = None, last: date | None = None) -> pl.DataFrame:
    """What was counted, for the days from `first` to `last` (None is open), and the rejects of files without a day.

    Returns:
        `day`, `source_day`, `what` (in, accepted, duplicate, rejected), `reason` (the event type of what was accepted,
        the reason of what was rejected), `count`. Of each day and source day, in = accepted + duplicate + rejected.

    Raises:
        InputError: nothing has been ingested.
    """
    if not exists_table(lake, "ingestion"):
        raise InputError("there is no event log", where=lake.uri("ingestion"), hint="ingest raw events first")
    in_range = pl.lit(True)
    if first is not None:
        in_range &= pl.col("day") >= first
    if last is not None:
        in_range &= pl.col("day") <= last
    return scan_table(lake, "ingestion").filter(in_range | pl.col("day").is_null()).collect()


@dataclass(frozen=True)
class _Stage:
    """Parsed files on local disk: `events` a folder a day, `rejects` one frame, `counts` of what came in."""

    folder: Path
    rejects: pl.DataFrame  # REJECTS_SCHEMA
    came_in: pl.DataFrame  # day, source_day, count
    item_type: pl.DataType
    source_days: list[date] | None  # of the files; None when files are not one day's each

    def events(self, day: date) -> pl.LazyFrame | None:
        paths = sorted((self.folder / "events" / f"day={day.isoformat()}").glob("*.parquet"))
        return pl.scan_parquet(paths).with_columns(day=pl.lit(day)) if paths else None

    def of_these_files(self) -> pl.Expr:
        """Whether a row of the log came from the files of this stage."""
        return pl.lit(True) if self.source_days is None else pl.col("source_day").is_in(self.source_days)


def _stage(
    source: RawSource,
    lake: Tables,
    files: dict[str, Any],
    day_of_file: dict[str, date] | None,
    days: tuple[date, date],
    folder: Path,
) -> _Stage:
    """Parse the files once, onto the local disk, and judge them."""
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
        far = ~(pl.col("day") - pl.col("source_day")).dt.total_days().is_between(-source.max_late_days, 1)
        strange = events.filter(far).select(
            "file",
            "line",
            pl.lit("time is far from the day of the file").alias("reason"),
            pl.concat_str("session_id", "item_id", pl.col("ts").cast(pl.String), "event_type", separator=" ").alias(
                "text"
            ),
        )
        rejects = pl.concat([rejects, strange]).join(source_days, on="file", how="left").rename({"source_day": "day"})
        events = events.filter(~far)
        all_events = events.group_by("source_day").len()
    partitions = pl.PartitionBy(folder / "events", key="day", include_key=False)
    (folder / "events").mkdir()
    with reading():
        _, rejected, accepted = pl.collect_all(
            [events.sink_parquet(partitions, compression="lz4", mkdir=True, lazy=True), rejects, all_events],
            engine="streaming",
        )
    _judge(source, rejected, dict(accepted.iter_rows()))
    staged = sorted((folder / "events").glob("day=*/*.parquet"))
    item_type = events.collect_schema()["item_id"]
    came_in = pl.DataFrame(schema={name: INGESTION_SCHEMA[name] for name in ("day", "source_day", "count")})
    if staged:
        scan = pl.scan_parquet(staged, hive_partitioning=True, hive_schema={"day": pl.Date})
        came_in = scan.group_by("day", "source_day").agg(count=pl.len().cast(pl.Int64)).collect(engine="streaming")
    days_of_files = None if day_of_file is None else sorted(set(day_of_file.values()))
    return _Stage(folder, rejected.select(REJECTS_SCHEMA.names()), came_in, item_type, days_of_files)


def _fixed_item_type(source: RawSource, lake: Tables) -> ColumnMapping | None:
    """The source's mapping; the type of items is not guessed anew every day once there is a log."""
    mapping = source.mapping or ColumnMapping()
    if source.format != "table" or mapping.item_type != "auto" or not exists_table(lake, "events"):
        return source.mapping
    return dataclasses.replace(mapping, item_type="integer" if item_type_of(lake) == pl.Int64 else "string")


def _judge(source: RawSource, rejects: pl.DataFrame, accepted: dict[date | None, int]) -> None:
    """Refuse a delivery of which one day has too many rejects: in a month a bad day would not be seen.

    The earliest such day is named, in whatever order the engine gave the rejects.
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
    """Bring what was staged into the tables: rejects, then events, and the counts last."""
    affected = _affected_days(lake, stage, days)
    stage_days: list[date | None] = [None] if stage.source_days is None else [*stage.source_days]
    write_table(lake, "rejects", in_days(stage_days), lambda _: iter([stage.rejects]))
    changed: set[date] = set()
    repeated: set[date] = set()
    before = scan_table(lake, "ingestion").filter(pl.col("day").is_in(affected)).collect()

    def frames(standing: pl.LazyFrame) -> Iterator[pl.DataFrame]:
        changed.clear()
        repeated.clear()
        for day in affected:
            rows = _rows(standing, stage, day)
            slices = max(1, -(-rows // rows_in_memory))
            for number in range(slices):
                kept, new, vanished = _merge_day(standing, stage, day, slices, number)
                if new or vanished:
                    changed.add(day)
                if vanished:
                    repeated.update(_repeating(before, stage, day))
                yield kept

    write_table(lake, "events", in_days([*affected]), frames)
    statistics: list[pl.DataFrame] = []

    def counted(standing: pl.LazyFrame) -> Iterator[pl.DataFrame]:
        # Anew when another ingestion was in the way; and before the stream, which must open no table (`write_table`).
        statistics[:] = [_statistics(lake, stage, affected, standing)]
        return iter(statistics)

    write_table(lake, "ingestion", in_days(list(dict.fromkeys([*affected, *stage_days]))), counted)
    own = statistics[0].filter(stage.of_these_files() | pl.col("source_day").is_null())
    late = own.filter(pl.col("what") == "accepted", ~pl.col("day").is_between(*days))
    accepted = _by_reason(own, "accepted")
    return IngestionReport(
        *days,
        events=sum(accepted.values()),
        counts={
            "in": _total(own, "in"),
            "accepted": accepted,
            "duplicate": _total(own, "duplicate"),
            "rejected": _by_reason(own, "rejected"),
            "late": int(late["count"].sum()),
        },
        late_days=sorted(changed - set(days_between(*days))),
        repeated_days=sorted(repeated),
        files=files,
    )


def _affected_days(lake: Tables, stage: _Stage, days: tuple[date, date]) -> list[date]:
    """The days whose partitions change: those asked for, and those that late events are or were in."""
    affected = {*days_between(*days), *stage.came_in["day"].to_list()}
    if stage.source_days is not None:
        brought = scan_table(lake, "events").filter(stage.of_these_files()).select("day").unique()
        affected |= set(brought.collect(engine="streaming")["day"])
    return sorted(affected)


def _rows(events: pl.LazyFrame, stage: _Stage, day: date) -> int:
    staged = int(stage.came_in.filter(day=day)["count"].sum())
    return staged + events.filter(pl.col("day") == day).select(pl.len()).collect().item()


def _merge_day(
    events: pl.LazyFrame, stage: _Stage, day: date, slices: int, number: int
) -> tuple[pl.DataFrame, int, int]:
    """A slice of a day's events as they are to stand; how many are new, and how many of these files are gone."""
    in_slice = pl.lit(True) if slices == 1 else pl.col("session_id").hash() % slices == number
    standing = events.filter(pl.col("day") == day).filter(in_slice).collect()
    parts = [standing.filter(~stage.of_these_files())]
    staged = stage.events(day)
    if staged is not None:
        parts.append(staged.filter(in_slice).select(standing.columns).collect())
    # Sorted, a session's events stand together; of equal events the first line of the first file stays.
    rows = pl.concat(parts).sort("session_id", "ts", "file", "line", maintain_order=True)
    kept = rows.filter(pl.struct(_IDENTITY).is_first_distinct())
    gone = standing.filter(stage.of_these_files()).join(kept, on=_IDENTITY, how="anti")
    return kept, len(kept) - len(standing) + len(gone), len(gone)  # an event stands once, before and after


def _repeating(before: pl.DataFrame, stage: _Stage, day: date) -> list[date]:
    """Source days that repeated events of `day`, whose copies were not kept."""
    repeats = before.filter(~stage.of_these_files(), day=day, what="duplicate")
    return repeats["source_day"].drop_nulls().to_list()


def _statistics(lake: Tables, stage: _Stage, affected: list[date], standing: pl.LazyFrame) -> pl.DataFrame:
    """The rows of `ingestion` for the affected days, whatever files their events came in.

    What came in is counted when files are parsed, accepted events and rejects are counted in the tables' rows, and
    duplicates are the rest.
    """
    key = ["day", "source_day"]
    concerned = pl.col("day").is_in(affected)
    if stage.source_days is None:
        concerned |= pl.col("day").is_null()
    rejected = (
        scan_table(lake, "rejects")
        .filter(concerned)
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
    earlier = standing.filter(concerned, pl.col("what") == "in", ~stage.of_these_files()).collect()
    new_rejects = stage.rejects.group_by("day").agg(count=pl.len().cast(pl.Int64)).with_columns(source_day="day")
    came_in = (
        pl.concat(
            [earlier.select(*key, "count"), stage.came_in.select(*key, "count"), new_rejects.select(*key, "count")]
        )
        .group_by(key)
        .agg(pl.col("count").sum())
    )
    known = pl.concat([rejected.select(*key, "count"), accepted.select(*key, "count")])
    duplicates = (
        came_in.join(known.group_by(key).agg(known=pl.col("count").sum()), on=key, how="left", nulls_equal=True)
        .with_columns(count=pl.col("count") - pl.col("known").fill_null(0))
        .filter(pl.col("count") > 0)
    )
    parts = {"in": came_in, "accepted": accepted, "duplicate": duplicates, "rejected": rejected}
    rows = [part.with_columns(what=pl.lit(what)) for what, part in parts.items()]
    whole = pl.concat(
        [row if "reason" in row.columns else row.with_columns(reason=pl.lit("")) for row in rows], how="diagonal"
    )
    names = INGESTION_SCHEMA.names()
    return whole.select(pl.col(name).cast(INGESTION_SCHEMA[name]) for name in names).sort(names[:4])


def _total(statistics: pl.DataFrame, what: str) -> int:
    return int(statistics.filter(what=what)["count"].sum())


def _by_reason(statistics: pl.DataFrame, what: str) -> dict[str, int]:
    counted = statistics.filter(what=what).group_by("reason").agg(pl.col("count").sum()).sort("reason")
    return dict(counted.select("reason", "count").iter_rows())
