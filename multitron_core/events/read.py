"""The event log: every raw format read into one shape, and the lines that are no events, with the reason.

events   session_id String, item_id Int64 | String, ts Datetime(us, UTC), event_type String (click, cart, order),
         file String, line Int64 (from 1)
rejects  file String, line Int64, reason String, text String (at most 500 characters)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from multitron_core.errors import InputError, UnavailableError
from multitron_core.events.formats import ColumnMapping, get_format
from multitron_core.events.formats.format import EVENT_TYPES, TEXT_LIMIT, TIME, Files
from multitron_core.events.raw_files import Location, find_raw_files, refuse_twins
from multitron_core.events.sessionize import cut_sessions

__all__ = ["EVENT_TYPES", "TIME", "ColumnMapping", "EventLog", "check_events", "check_reject_share", "read_events"]

REJECT_SCHEMA = pl.Schema({"file": pl.String, "line": pl.Int64, "reason": pl.String, "text": pl.String})
HARMLESS_REASONS = ("empty line", "event type not used")
"""Rejects that are kept and counted but do not count against the share of rejects."""


@dataclass(frozen=True, eq=False)
class EventLog:
    """Events and rejects, all lazy.

    Args:
        events: the log's events.
        rejects: the lines that are none. Collect both together (`pl.collect_all`) and the files are read once.
        parsed: both in one stream, a reject being a row with a `reason`; users are not cut into sessions here. Whoever
            takes batches reads this: of two streams out of one the slower is buffered without bound.
        session_gap: the pause that cuts the users of `parsed` into the sessions of `events`; None: they are sessions.
    """

    events: pl.LazyFrame
    rejects: pl.LazyFrame
    parsed: pl.LazyFrame
    session_gap: timedelta | None = None


def read_events(
    path: Location,
    format: str,
    *,
    columns: ColumnMapping | None = None,
    orders_required: bool = True,
    cut: bool = True,
    storage_options: dict[str, str] | None = None,
) -> EventLog:
    """Read raw files as an event log. Nothing is read before the log is collected, except what finds the files.

    Args:
        path: a file, a folder (without its subfolders), a glob, a sequence of these, or an object-store URL; gzip and
            zstd files are read as they are. `file` in the log is the path relative to the folder or to the glob's
            fixed part.
        format: `diginetica`, `yoochoose`, `otto` or `table`.
        columns: for `table`: which columns mean what.
        orders_required: whether files of clicks without files of orders are refused.
        cut: for a `table` without session ids: cut each user's events into sessions; `False` leaves the user's id in
            `session_id`, for callers who cut later.
        storage_options: credentials and endpoint of an object store, as polars takes them.

    Returns:
        The `EventLog`: every line is in exactly one of them. Lines that are bad are not raised here:
        `check_reject_share` is the border that stops a run.

    Raises:
        InputError: an unknown format, nothing to read, no orders.
    """
    chosen = get_format(format)
    files = find_raw_files(path, chosen.roles, format=format, storage_options=storage_options)
    refuse_twins(files)
    check_orders(files, format, orders_required=orders_required, where=path)
    return read_files(files, format, columns=columns, cut=cut, storage_options=storage_options)


def read_files(
    files: Files,
    format: str,
    *,
    columns: ColumnMapping | None = None,
    cut: bool = True,
    storage_options: dict[str, str] | None = None,
) -> EventLog:
    """`read_events` of files that have been found already."""
    try:
        parsed = get_format(format).parse(files, columns, storage_options)
    except OSError as error:
        where = [file.path for found in files.values() for file in found][:5]
        raise UnavailableError("a raw file cannot be opened", where=where, found=str(error)) from error
    # Events and rejects are one parse: filters and selections that moved below this point would make it two.
    parsed = parsed.map_batches(
        _unchanged,
        predicate_pushdown=False,
        projection_pushdown=False,
        slice_pushdown=False,
        streamable=True,
        validate_output_schema=False,
    )
    accepted = pl.col("reason").is_null()
    events = parsed.filter(accepted).select("session_id", "item_id", "ts", "event_type", "file", "line")
    rejects = parsed.filter(~accepted).select("file", "line", "reason", pl.col("text").str.slice(0, TEXT_LIMIT))
    if not cut or columns is None or columns.user_id is None:
        return EventLog(events, rejects, parsed)
    return EventLog(cut_sessions(events, columns.session_gap), rejects, parsed, columns.session_gap)


def _unchanged(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


@contextmanager
def reading() -> Iterator[None]:
    """What goes wrong while raw files are being read, as errors of this project.

    Raises:
        InputError: a file is gone, or its compression is damaged.
        UnavailableError: the object store does not answer.
    """
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:
        if "object-store" in str(error):
            raise UnavailableError("the object store does not answer", found=str(error)) from error
        raise InputError(
            "a raw file cannot be read",
            found=str(error),
            hint="check that the files are there and whole: `gzip -t` tests a compressed one",
        ) from error


def check_orders(files: Files, format: str, *, orders_required: bool, where: object) -> None:
    """Refuse files of which a role is missing.

    Raises:
        InputError: there are no clicks, or no orders though they are required.
    """
    chosen = get_format(format)
    for role, found in files.items():
        optional = role in chosen.optional_roles
        if not found and (orders_required or not optional):
            raise InputError(
                f"there is no file of {role}",
                where=where,
                found=[file.name for others in files.values() for file in others][:5],
                hint=f"put a file whose name contains {chosen.roles[role]!r} beside the others"
                + (", or pass orders_required=False" if optional else ""),
            )


def check_events(events: pl.LazyFrame, *, where: object = "events") -> pl.LazyFrame:
    """The log's columns in the log's types, from a frame that has at least session, item, time and type.

    `file` and `line` are kept where both are there. Other integer types and time units are cast.

    Raises:
        InputError: a column is missing or of another type.
    """
    schema = events.collect_schema()
    wanted = ("session_id", "item_id", "ts", "event_type")
    missing = [name for name in wanted if name not in schema]
    if missing:
        raise InputError(
            "the event log lacks columns", where=where, found=list(schema), hint=f"add {', '.join(missing)}"
        )
    item_type, ts_type = schema["item_id"], schema["ts"]
    if not (item_type == pl.String or item_type.is_integer()):
        raise InputError(
            "item ids are neither integers nor strings",
            where=f"{where}: item_id",
            found=str(item_type),
            hint="cast item_id to Int64 or String",
        )
    if not (isinstance(ts_type, pl.Datetime) and ts_type.time_zone is not None):
        raise InputError(
            "times have no time zone", where=f"{where}: ts", found=str(ts_type), hint="cast ts to Datetime('us', 'UTC')"
        )
    place = ["file", "line"] if "file" in schema and "line" in schema else []
    return events.select(
        pl.col("session_id").cast(pl.String),
        pl.col("item_id") if item_type in (pl.String, pl.Int64) else pl.col("item_id").cast(pl.Int64),
        pl.col("ts").dt.convert_time_zone("UTC").cast(TIME),
        pl.col("event_type").cast(pl.String),
        *place,
    )


def check_reject_share(
    accepted: int, rejected: dict[str, int], first: pl.DataFrame, *, max_share: float, where: object
) -> None:
    """Stop a run whose input has too many bad lines.

    Args:
        accepted: events.
        rejected: reason -> rejected lines.
        first: some rejects, `file`, `line`, `reason`, `text`, for the message.
        max_share: the largest allowed share of rejects in rejects and events, in [0, 1].
        where: the input.

    Raises:
        InputError: the share is larger.
    """
    if not 0.0 <= max_share <= 1.0:
        raise InputError("max_reject_share lies outside [0, 1]", found=max_share, hint="use a share, for example 0.01")
    bad = sum(count for reason, count in rejected.items() if reason not in HARMLESS_REASONS)
    if bad and bad > max_share * (accepted + bad):
        lines = "; ".join(
            f"{row['file']}, line {row['line']}: {row['reason']}: {(row['text'] or '')[:80]!r}"
            for row in first.head(3).to_dicts()
        )
        raise InputError(
            f"{bad} of {accepted + bad} lines are bad, more than the allowed share of {max_share:g} (first: {lines})",
            where=where,
            found=dict(sorted(rejected.items(), key=lambda pair: -pair[1])),
            hint="mend the files, check the format, or allow a larger max_reject_share",
        )
