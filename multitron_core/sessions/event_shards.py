"""Events cut into shards by session, so that whole sessions fit in memory however large the log is.

A stream of events is buffered. While it fits in `rows_in_memory`, there is one shard and nothing touches the disk.
Beyond that the buffer is written out in buckets by a hash of the session, and shards are read back bucket by bucket.
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
from multitron_core.events.formats.format import EVENT_TYPES, TIME
from multitron_core.events.read import REJECT_SCHEMA, EventLog, check_events, reading
from multitron_core.events.sessionize import cut_sessions
from multitron_core.utils.ragged import ranges, run_starts
from multitron_core.utils.temporary_folder import temporary_folder

ROWS_IN_MEMORY = 1_500_000
"""Events that are held at once by default; a row takes about 50 bytes, and work on it about four times as much."""

BUCKETS = 64
LINE_BITS = 40  # a place in the source is `file rank << 40 | line`: a million million lines a file


class EventShards:
    """Takes a stream of events, gives it back as shards of whole sessions.

    Args:
        rows_in_memory: events that are held at once.
        session_gap: `session_id` is a user's id, whose events are cut where nothing happens for longer than this.

    Use as a context manager: leaving it removes what was written to the disk.
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
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="spill")  # writes while more events come
        self._shards = 0  # when there are spills
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.counts: Counter[str] = Counter()
        """Event type -> events that came in."""
        self.rejected: Counter[str] = Counter()
        """Reason -> rejected lines, when an `EventLog` was read."""
        self.first_rejects = pl.DataFrame(schema=REJECT_SCHEMA)
        """The first of each reason."""

    def __enter__(self) -> EventShards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.shutdown()
        if self._folder is not None:
            self._folder.cleanup()

    def read(self, events: EventLog | pl.LazyFrame | pl.DataFrame) -> None:
        """Read a whole log, once.

        Args:
            events: an `EventLog`, whose rejects are counted, or a frame with the log's columns. Without `file` and
                `line` the order of rows stands for the order of lines.

        Raises:
            InputError: columns are missing, of a wrong type, or hold nulls or unknown event types.
        """
        failures: list[BaseException] = []

        def take(batch: pl.DataFrame) -> None:
            try:
                self._take(batch)
            except BaseException as error:
                failures.append(error)  # the engine would hand on its text only
                raise

        if isinstance(events, EventLog):
            stream = events.parsed
            self._gap = self._gap or events.session_gap
        else:
            stream = check_events(events.lazy())
        try:
            with reading():
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
        """A folder for what belongs to the shards, removed with them; None while all is in memory."""
        return None if self._folder is None else Path(self._folder.name)

    def file_names(self) -> list[str]:
        """The sources of the events, sorted; a click's file is the one at `place >> LINE_BITS`."""
        return sorted(self._files)

    def __len__(self) -> int:
        """The number of shards."""
        return self._shards if self._spills else int(self._buffered > 0)

    def load(self, number: int) -> pl.DataFrame:
        """A shard, once: `session_id`, `item_id`, `ts` Int64 (microseconds), `event_type`, `place` Int64.

        A session's events are all in one shard, in the order in which they were read; `place` is the order of lines.
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
        """Count lines by reason, and keep the first of each."""
        counted = lines.group_by("reason", maintain_order=True).agg(pl.len(), pl.col("file", "line", "text").first())
        new = counted.filter(~pl.col("reason").is_in(list(self.rejected)))
        self.rejected.update(dict(counted.select("reason", "len").iter_rows()))
        self.first_rejects = pl.concat([self.first_rejects, new.select(self.first_rejects.columns)])

    def _place(self, batch: pl.DataFrame) -> pl.Series:
        """Where each event stands, files being numbered in the order in which they come."""
        if "file" not in batch.columns:
            self._files.setdefault("", 0)
            return pl.int_range(self._seen, self._seen + len(batch), eager=True).alias("place")
        # Most batches are of one file, which the extremes tell without looking at every row twice.
        one_file = batch["file"].min() == batch["file"].max()
        for name in batch["file"].head(1) if one_file else batch["file"].unique().sort():
            self._files.setdefault(name, len(self._files))
        if one_file:
            return batch["line"].alias("place") + (self._files[batch["file"][0]] << LINE_BITS)
        return batch["line"].alias("place") + batch["file"].replace_strict(
            {name: number << LINE_BITS for name, number in self._files.items()}, return_dtype=pl.Int64
        )

    def _drain(self) -> pl.DataFrame:
        """What was buffered, which is not held here any more."""
        events = pl.concat(self._buffer)
        self._buffer, self._buffered = [], 0
        return events

    def _spill(self) -> None:
        if not self._buffer:
            return
        if self._folder is None:
            self._folder = temporary_folder("shards")
        if self._spills:
            self._spills[-1].result()  # memory stays bounded when the disk is slow
        path = Path(self._folder.name) / f"spill-{len(self._spills)}"
        self._spills.append(self._writer.submit(_Spill.write, path, self._drain()))

    def _finished(self, events: pl.DataFrame) -> pl.DataFrame:
        """Events of a shard with files numbered by name, and users cut into sessions."""
        rank = {name: rank for rank, name in enumerate(self.file_names())}
        moved = np.array([(rank[name] - number) << LINE_BITS for name, number in self._files.items()], dtype=np.int64)
        if moved.any():
            events = events.with_columns(pl.col("place") + pl.Series(moved[events["place"].to_numpy() >> LINE_BITS]))
        if self._gap is None:
            return events
        timed = events.lazy().with_columns(pl.col("ts").cast(TIME))
        return cut_sessions(timed, self._gap).with_columns(pl.col("ts").to_physical()).collect()


@dataclass(frozen=True, eq=False)
class _Spill:
    """Events on disk, in the order of their buckets; a session's id stands there once for each run of its events.

    Args:
        path: of `<path>.events.arrow` and `<path>.runs.arrow`.
        event_offsets, run_offsets: int64 [BUCKETS + 1], where each bucket begins.
    """

    path: Path
    event_offsets: np.ndarray
    run_offsets: np.ndarray

    @classmethod
    def write(cls, path: Path, events: pl.DataFrame) -> _Spill:
        starts = run_starts(events["session_id"])
        ids, lengths = events["session_id"].gather(starts), np.diff(starts, append=len(events))
        bucket = (ids.hash() % BUCKETS).to_numpy()
        order = np.argsort(bucket, kind="stable")
        rows = ranges(starts[order], lengths[order])
        # Uncompressed: a third of the processor time of a spill.
        events.drop("session_id")[rows].write_ipc(f"{path}.events.arrow")
        pl.DataFrame({"session_id": ids.gather(order), "length": lengths[order]}).write_ipc(f"{path}.runs.arrow")
        runs = np.bincount(bucket, minlength=BUCKETS)
        rows_of_bucket = np.bincount(bucket, weights=lengths, minlength=BUCKETS).astype(np.int64)
        return cls(path, *(np.concatenate([[0], np.cumsum(counts)]) for counts in (rows_of_bucket, runs)))

    def load(self, first: int, last: int) -> pl.DataFrame:
        """The events of the buckets from `first` to `last - 1`; only their part of the files is read."""
        runs = _read(f"{self.path}.runs.arrow", self.run_offsets, first, last)
        ids = runs["session_id"].gather(np.repeat(np.arange(len(runs)), runs["length"].to_numpy()))
        return _read(f"{self.path}.events.arrow", self.event_offsets, first, last).with_columns(ids)


def _read(path: str, offsets: np.ndarray, first: int, last: int) -> pl.DataFrame:
    return pl.scan_ipc(path).slice(int(offsets[first]), int(offsets[last] - offsets[first])).collect()
