"""Split events into shards of whole sessions that fit in memory, for logs of any size.

A stream of events is buffered. A log of fewer than `rows_in_memory` events is one shard and stays in memory. For larger
logs, the buffer is written to disk in buckets by a hash of the session, and a shard is a range of buckets.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType

import numpy as np
import polars as pl

from multitron_core.errors import InputError
from multitron_core.events.formats.format import TIME
from multitron_core.events.read import REJECT_SCHEMA, EventLog, check_events, translate_read_errors
from multitron_core.events.sessionize import cut_sessions
from multitron_core.utils.event_types import EVENT_TYPES
from multitron_core.utils.ragged import ranges, run_starts
from multitron_core.utils.temporary_folder import temporary_folder

ROWS_IN_MEMORY = 1_500_000
"""Default number of events in memory. A row takes about 50 bytes, and processing it about four times as much."""

BUCKETS = 64
"""Number of buckets on disk, and the maximum number of shards."""

LINE_BITS = 40
"""Bits of the line in a place, which is `file rank << LINE_BITS | line`: up to 10^12 lines per file."""


class EventShards:
    """Reads a stream of events and returns it as shards of whole sessions.

    Use it as a context manager; its exit removes the files on disk.

    Args:
        rows_in_memory: Maximum number of events in memory.
        session_gap: Longest pause within a session, if `session_id` is the id of a user whose events are to be split
            into sessions.

    Raises:
        InputError: `rows_in_memory` is not positive.
    """

    def __init__(
        self,
        *,
        rows_in_memory: int = ROWS_IN_MEMORY,
        session_gap: timedelta | None = None,
    ) -> None:
        if rows_in_memory < 1:
            raise InputError("rows_in_memory is not positive", found=rows_in_memory, hint="use about a million or more")
        self._limit, self._gap = rows_in_memory, session_gap
        self._buffer: list[pl.DataFrame] = []
        self._buffered = self._seen = 0
        self._files: dict[str, int] = {}
        self._spills: list[Future[_Spill]] = []
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="spill")  # writes while events are read
        self._shards = 0  # number of shards if there are spills
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.counts: Counter[str] = Counter()
        """Event type -> number of events read."""
        self.rejected: Counter[str] = Counter()
        """Reason -> number of rejected lines, if an `EventLog` was read."""
        self.first_rejects = pl.DataFrame(schema=REJECT_SCHEMA)
        """The first reject of each reason: `file`, `line`, `reason`, `text`."""

    def __enter__(self) -> EventShards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.shutdown()
        if self._folder is not None:
            self._folder.cleanup()

    def read(self, events: EventLog | pl.LazyFrame | pl.DataFrame) -> None:
        """Read a whole log; call this once.

        Args:
            events: An `EventLog`, whose rejects are counted, or a frame with the log's columns. If `file` and `line`
                are missing, rows count as lines of one file.

        Raises:
            InputError: A column is missing, has a wrong type, or contains nulls or unknown event types; a raw file
                cannot be read.
            UnavailableError: The object store does not answer.
        """
        failures: list[BaseException] = []

        def take(batch: pl.DataFrame) -> None:
            try:
                self._take(batch)
            except BaseException as error:
                failures.append(error)  # the engine would raise an error of its type with the text only
                raise

        if isinstance(events, EventLog):
            stream = events.parsed
            self._gap = self._gap or events.session_gap
        else:
            stream = check_events(events.lazy())
        try:
            with translate_read_errors():
                stream.with_columns(pl.col("ts").to_physical()).sink_batches(
                    take, maintain_order=True, engine="streaming"
                )
        except Exception:
            if failures:
                raise failures[0] from None
            raise
        if self._spills:
            self._spill()
            self._shards = min(-(-self._seen // self._limit), BUCKETS)

    @property
    def folder(self) -> Path | None:
        """Folder for files about the shards, removed on exit; None while all events are in memory."""
        return None if self._folder is None else Path(self._folder.name)

    def file_names(self) -> list[str]:
        """Files of the events, sorted by name; the file of a `place` is the one at `place >> LINE_BITS`."""
        return sorted(self._files)

    def __len__(self) -> int:
        """The number of shards."""
        return self._shards if self._spills else int(self._buffered > 0)

    def load(self, number: int) -> pl.DataFrame:
        """Load a shard; call this once per shard.

        Args:
            number: Number of the shard, from 0.

        Returns:
            `session_id`, `item_id`, `ts` Int64 (microseconds since 1970, UTC), `event_type`, `place` Int64 (position of
            the line in the source, see `LINE_BITS`). All events of a session are in one shard, in the order in which
            they were read.
        """
        if not self._spills:
            return self._finished(self._drain())
        first, last = (BUCKETS * n // self._shards for n in (number, number + 1))
        return self._finished(pl.concat(spill.result().load(first, last) for spill in self._spills))

    def _take(self, batch: pl.DataFrame) -> None:
        if "reason" in batch.columns:
            if batch["reason"].null_count() < len(batch):
                self._reject(batch.filter(pl.col("reason").is_not_null()))
                batch = batch.filter(pl.col("reason").is_null())
            batch = batch.drop("reason", "text")
        nulls = {name: count for name, count in batch.null_count().row(0, named=True).items() if count}
        if nulls:
            raise InputError("events have nulls", found=nulls, hint="read the events with read_events, or drop them")
        event_type = batch["event_type"].cast(pl.Enum(EVENT_TYPES), strict=False)
        if event_type.null_count():
            unknown = batch["event_type"].filter(event_type.is_null()).unique().sort().to_list()
            raise InputError("unknown event types", found=unknown, hint=f"map them to {', '.join(EVENT_TYPES)}")
        counted = np.bincount(event_type.to_physical(), minlength=len(EVENT_TYPES))
        self.counts.update(dict(zip(EVENT_TYPES, counted.tolist(), strict=True)))
        place = self._place(batch)
        batch = batch.select("session_id", "item_id", "ts").with_columns(event_type, place)
        self._seen += len(batch)
        self._buffered += len(batch)
        self._buffer.append(batch)
        if self._buffered >= self._limit:
            self._spill()

    def _reject(self, lines: pl.DataFrame) -> None:
        """Count rejected lines by reason, and keep the first of each reason."""
        counted = lines.group_by("reason", maintain_order=True).agg(pl.len(), pl.col("file", "line", "text").first())
        new = counted.filter(~pl.col("reason").is_in(list(self.rejected)))
        self.rejected.update(dict(counted.select("reason", "len").iter_rows()))
        self.first_rejects = pl.concat([self.first_rejects, new.select(self.first_rejects.columns)])

    def _place(self, batch: pl.DataFrame) -> pl.Series:
        """Place of each event; files are numbered in the order in which they are read."""
        if "file" not in batch.columns:
            self._files.setdefault("", 0)
            return pl.int_range(self._seen, self._seen + len(batch), eager=True).alias("place")
        # Most batches contain one file only; minimum and maximum show it faster than the distinct values.
        one_file = batch["file"].min() == batch["file"].max()
        for name in batch["file"].head(1) if one_file else batch["file"].unique().sort():
            self._files.setdefault(name, len(self._files))
        if one_file:
            return batch["line"].alias("place") + (self._files[batch["file"][0]] << LINE_BITS)
        return batch["line"].alias("place") + batch["file"].replace_strict(
            {name: number << LINE_BITS for name, number in self._files.items()}, return_dtype=pl.Int64
        )

    def _drain(self) -> pl.DataFrame:
        """Remove and return the buffered events."""
        events = pl.concat(self._buffer)
        self._buffer, self._buffered = [], 0
        return events

    def _spill(self) -> None:
        if not self._buffer:
            return
        if self._folder is None:
            self._folder = temporary_folder("shards")
        if self._spills:
            self._spills[-1].result()  # limits memory use if the disk is slow
        path = Path(self._folder.name) / f"spill-{len(self._spills)}"
        self._spills.append(self._writer.submit(_Spill.write, path, self._drain()))

    def _finished(self, events: pl.DataFrame) -> pl.DataFrame:
        """Events of a shard, with files numbered in the order of their names and users split into sessions."""
        rank = {name: rank for rank, name in enumerate(self.file_names())}
        shift = np.array([(rank[name] - number) << LINE_BITS for name, number in self._files.items()], dtype=np.int64)
        if shift.any():
            events = events.with_columns(pl.col("place") + pl.Series(shift[events["place"].to_numpy() >> LINE_BITS]))
        if self._gap is None:
            return events
        timed = events.lazy().with_columns(pl.col("ts").cast(TIME))
        return cut_sessions(timed, self._gap).with_columns(pl.col("ts").to_physical()).collect()


@dataclass(frozen=True, eq=False)
class _Spill:
    """Events on disk in the order of their buckets. Session ids are stored once per run of consecutive events.

    Args:
        path: Path without suffix of `<path>.events.arrow` and `<path>.runs.arrow`.
        event_offsets, run_offsets: int64 [BUCKETS + 1], first row of each bucket in these files.
    """

    path: Path
    event_offsets: np.ndarray
    run_offsets: np.ndarray

    @classmethod
    def write(cls, path: Path, events: pl.DataFrame) -> _Spill:
        """Write events to disk, sorted by bucket."""
        starts = run_starts(events["session_id"])
        ids, lengths = events["session_id"].gather(starts), np.diff(starts, append=len(events))
        bucket = (ids.hash() % BUCKETS).to_numpy()
        order = np.argsort(bucket, kind="stable")
        rows = ranges(starts[order], lengths[order])
        # Not compressed, because compression would triple the processor time of a spill.
        events.drop("session_id")[rows].write_ipc(f"{path}.events.arrow")
        pl.DataFrame({"session_id": ids.gather(order), "length": lengths[order]}).write_ipc(f"{path}.runs.arrow")
        runs = np.bincount(bucket, minlength=BUCKETS)
        rows_of_bucket = np.bincount(bucket, weights=lengths, minlength=BUCKETS).astype(np.int64)
        return cls(path, *(np.concatenate([[0], np.cumsum(counts)]) for counts in (rows_of_bucket, runs)))

    def load(self, first: int, last: int) -> pl.DataFrame:
        """Load the events of the buckets from `first` to `last - 1`; reads only their part of the files."""
        runs = _read(f"{self.path}.runs.arrow", self.run_offsets, first, last)
        ids = runs["session_id"].gather(np.repeat(np.arange(len(runs)), runs["length"].to_numpy()))
        return _read(f"{self.path}.events.arrow", self.event_offsets, first, last).with_columns(ids)


def _read(path: str, offsets: np.ndarray, first: int, last: int) -> pl.DataFrame:
    return pl.scan_ipc(path).slice(int(offsets[first]), int(offsets[last] - offsets[first])).collect()
