"""The event log: every raw format read into the same columns, and the rejected lines with the reason.

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
from multitron_core.events.formats.format import TEXT_LIMIT, TIME, Files
from multitron_core.events.raw_files import Location, find_raw_files, refuse_duplicates
from multitron_core.events.sessionize import cut_sessions

__all__ = ["EventLog", "check_events", "check_reject_share", "read_events"]

REJECT_SCHEMA = pl.Schema({"file": pl.String, "line": pl.Int64, "reason": pl.String, "text": pl.String})
HARMLESS_REASONS = ("empty line", "event type not used")
"""Rejects that are kept and counted, but are not part of the share of rejects."""


@dataclass(frozen=True, eq=False)
class EventLog:
    """Events and rejected lines, as lazy frames.

    Args:
        events: The events.
        rejects: The lines that are not events. `pl.collect_all` of both frames reads the files once.
        parsed: Events and rejects in one stream; rejects have a `reason`. Users are not split into sessions. Read this
            frame in batches: with `events` and `rejects` as two streams, the slower one is buffered without bound.
        session_gap: Pause that splits the users of `parsed` into the sessions of `events`; None if `parsed` already has
            sessions.
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
    """Read raw files as an event log.

    The function searches the files and reads the headers of tables. The events are read when the log is collected.

    Args:
        path: A file, a folder (without its subfolders), a glob, a sequence of these, or an object-store URL. Files may
            be compressed with gzip or zstd. `file` in the log is the path relative to the folder or to the fixed part
            of the glob.
        format: `diginetica`, `yoochoose`, `otto` or `table`.
        columns: For `table`: the meaning of the columns.
        orders_required: Whether files of clicks without files of orders are refused.
        cut: For a `table` without session ids: whether to split each user's events into sessions. With `False`,
            `session_id` is the user's id, for callers that split later.
        storage_options: Credentials and endpoint of an object store, as polars takes them.

    Returns:
        The `EventLog`; every line is either an event or a reject. Bad lines raise no error here:
        `check_reject_share` stops a run that has too many.

    Raises:
        InputError: The format is unknown, there is nothing to read, or there are no orders.
        UnavailableError: The object store does not answer.
    """
    chosen = get_format(format)
    files = find_raw_files(path, chosen.roles, format=format, storage_options=storage_options)
    refuse_duplicates(files)
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
    """Read files that have already been found as an event log; arguments as for `read_events`.

    Raises:
        UnavailableError: A file cannot be opened.
    """
    try:
        parsed = get_format(format).parse(files, columns, storage_options)
    except OSError as error:
        where = [file.path for found in files.values() for file in found][:5]
        raise UnavailableError("a raw file cannot be opened", where=where, found=str(error)) from error
    # This barrier keeps filters and selections above the parser, so that events and rejects share one parse.
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
def translate_read_errors() -> Iterator[None]:
    """Translate errors that occur while raw files are read into errors of this project.

    Raises:
        InputError: A file no longer exists, or its compression is damaged.
        UnavailableError: The object store does not answer.
    """
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:
        if "object-store" in str(error):
            raise UnavailableError("the object store does not answer", found=str(error)) from error
        raise InputError(
            "a raw file cannot be read",
            found=str(error),
            hint="check that the files exist and are complete; `gzip -t` tests a compressed file",
        ) from error


def check_orders(files: Files, format: str, *, orders_required: bool, where: object) -> None:
    """Refuse raw files that lack a required role.

    Args:
        files: Files by role.
        format: Name of their format.
        orders_required: Whether roles that the format marks as optional are required.
        where: Location of the files, for the error message.

    Raises:
        InputError: There are no clicks, or no orders although they are required.
    """
    chosen = get_format(format)
    for role, found in files.items():
        optional = role in chosen.optional_roles
        if not found and (orders_required or not optional):
            raise InputError(
                f"there is no file of {role}",
                where=where,
                found=[file.name for others in files.values() for file in others][:5],
                hint=f"add a file whose name contains {chosen.roles[role]!r} to the others"
                + (", or pass orders_required=False" if optional else ""),
            )


def check_events(events: pl.LazyFrame, *, where: object = "events") -> pl.LazyFrame:
    """Check the columns of an event log and cast them to the log's types.

    Args:
        events: Frame with at least `session_id`, `item_id`, `ts`, `event_type`. Other integer types and time units are
            cast.
        where: Source of the events, for the error message.

    Returns:
        These four columns, and `file` and `line` if `events` has both.

    Raises:
        InputError: A column is missing, or its type cannot be cast.
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
    position = ["file", "line"] if "file" in schema and "line" in schema else []
    return events.select(
        pl.col("session_id").cast(pl.String),
        pl.col("item_id") if item_type in (pl.String, pl.Int64) else pl.col("item_id").cast(pl.Int64),
        pl.col("ts").dt.convert_time_zone("UTC").cast(TIME),
        pl.col("event_type").cast(pl.String),
        *position,
    )


def check_reject_share(
    accepted: int, rejected: dict[str, int], first: pl.DataFrame, *, max_share: float, where: object
) -> None:
    """Refuse input that has too many bad lines.

    Args:
        accepted: Number of events.
        rejected: Reason -> number of rejected lines.
        first: Examples of rejects for the error message: `file`, `line`, `reason`, `text`.
        max_share: Largest accepted share of rejects among rejects and events, in [0, 1].
        where: The input, for the error message.

    Raises:
        InputError: The share of rejects is larger, or `max_share` is not a share.
    """
    if not 0.0 <= max_share <= 1.0:
        raise InputError("max_reject_share is outside [0, 1]", found=max_share, hint="use a share, for example 0.01")
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
            hint="fix the files, check the format, or allow a larger max_reject_share",
        )
