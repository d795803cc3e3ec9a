"""Events cut into shards by session, so that whole sessions fit in memory however large the log is.

A stream of events is buffered. While it fits in `rows_in_memory`, there is one shard and nothing touches the disk.
Beyond that the buffer is written out in buckets by a hash of the session, and shards are read back bucket by bucket.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from datetime import timedelta
from pathlib import Path
from types import TracebackType

import numpy as np
import polars as pl

from multitron_core.errors import InputError
from multitron_core.events import EVENT_TYPES, TIME, EventLog, check_events, reading
from multitron_core.session_cut import cut_sessions

ROWS_IN_MEMORY = 2_000_000
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
            raise InputError("rows_in_memory is not positive", found=rows_in_memory, mend="use about a million or more")
        self._limit, self._gap = rows_in_memory, session_gap
        self._buffer: list[pl.DataFrame] = []
        self._buffered = self._seen = 0
        self._files: dict[str, int] = {}
        self._spilled: defaultdict[int, list[Path]] = defaultdict(list)
        self._paths: list[list[Path]] = []  # of each shard, when there are files
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.counts: Counter[str] = Counter()
        """Event type -> events that came in."""
        self.rejected: Counter[str] = Counter()
        """Reason -> rejected lines, when an `EventLog` was read."""
        self.first_rejects = pl.DataFrame()

    def __enter__(self) -> EventShards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
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
        log = events if isinstance(events, EventLog) else EventLog(events.lazy(), pl.LazyFrame())
        failures: list[BaseException] = []

        def take(batch: pl.DataFrame) -> None:
            try:
                self._take(batch)
            except BaseException as error:
                failures.append(error)  # the engine would hand on its text only
                raise

        checked = check_events(log.events).with_columns(pl.col("ts").to_physical())
        queries = [checked.sink_batches(take, maintain_order=True, lazy=True)]
        if isinstance(events, EventLog):
            first = pl.col("file", "line", "text").first()
            queries.append(events.rejects.group_by("reason", maintain_order=True).agg(pl.len(), first))
        try:
            with reading():
                results = pl.collect_all(queries, engine="streaming")
        except Exception:
            if failures:
                raise failures[0] from None
            raise
        if isinstance(events, EventLog):
            self.first_rejects = results[1]
            self.rejected.update(dict(results[1].select("reason", "len").iter_rows()))
        if self._spilled:
            self._spill()
            shards = min(-(-self._seen // self._limit), BUCKETS)
            groups = (
                [path for bucket in range(n, BUCKETS, shards) for path in self._spilled[bucket]] for n in range(shards)
            )
            self._paths = [paths for paths in groups if paths]

    @property
    def folder(self) -> Path | None:
        """A folder for what belongs to the shards, removed with them; None while all is in memory."""
        return None if self._folder is None else Path(self._folder.name)

    def file_names(self) -> list[str]:
        """The sources of the events, sorted; a click's file is the one at `place >> LINE_BITS`."""
        return sorted(self._files)

    def __len__(self) -> int:
        """The number of shards."""
        return len(self._paths) if self._spilled else int(self._buffered > 0)

    def load(self, number: int) -> pl.DataFrame:
        """A shard, once: `session_id`, `item_id`, `ts` Int64 (microseconds), `event_type`, `place` Int64.

        A session's events are all in one shard, in the order in which they were read; `place` is the order of lines.
        """
        if self._spilled:
            return self._with_place(pl.concat(pl.read_ipc(path) for path in self._paths[number]))
        return self._with_place(self._drain())

    def _take(self, batch: pl.DataFrame) -> None:
        nulls = {name: count for name, count in batch.null_count().row(0, named=True).items() if count}
        if nulls:
            raise InputError("events have nulls", found=nulls, mend="read the events with read_events, or drop them")
        counts = dict(batch["event_type"].value_counts().iter_rows())
        unknown = sorted(set(counts) - set(EVENT_TYPES))
        if unknown:
            raise InputError("unknown event types", found=unknown, mend=f"map them to {', '.join(EVENT_TYPES)}")
        self.counts.update(counts)
        if "file" in batch.columns:
            # Most batches are of one file, which the extremes tell without looking at every row twice.
            one_file = batch["file"].min() == batch["file"].max()
            for name in batch["file"].head(1) if one_file else batch["file"].unique().sort():
                self._files.setdefault(name, len(self._files))
            batch = batch.with_columns(pl.col("file").replace_strict(self._files, return_dtype=pl.UInt32))
        else:
            self._files.setdefault("", 0)
            line = pl.int_range(self._seen, self._seen + len(batch), dtype=pl.Int64)
            batch = batch.with_columns(file=pl.lit(0, pl.UInt32), line=line)
        self._seen += len(batch)
        self._buffered += len(batch)
        self._buffer.append(batch.with_columns(pl.col("event_type").cast(pl.Enum(EVENT_TYPES))))
        if self._buffered >= self._limit:
            self._spill()

    def _drain(self) -> pl.DataFrame:
        """What was buffered, which is not held here any more."""
        events = pl.concat(self._buffer)
        self._buffer, self._buffered = [], 0
        return events

    def _spill(self) -> None:
        if not self._buffer:
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="multitron-shards-")
        bucket = (pl.col("session_id").hash() % BUCKETS).alias("bucket")
        parts = self._drain().with_columns(bucket).partition_by("bucket", as_dict=True, include_key=False)
        for (key,), part in parts.items():
            path = Path(self._folder.name) / f"{key}-{len(self._spilled[key])}.arrow"
            part.write_ipc(path)  # uncompressed: a third of the CPU time of a spill
            self._spilled[key].append(path)

    def _with_place(self, events: pl.DataFrame) -> pl.DataFrame:
        rank = {name: rank for rank, name in enumerate(self.file_names())}
        file_places = np.array([rank[name] for name in self._files], dtype=np.int64) << LINE_BITS
        place = pl.Series("place", file_places[events["file"].to_numpy()] | events["line"].to_numpy())
        events = events.drop("file", "line").with_columns(place)
        if self._gap is None:
            return events
        timed = events.lazy().with_columns(pl.col("ts").cast(TIME))
        return cut_sessions(timed, self._gap).with_columns(pl.col("ts").to_physical()).collect()
