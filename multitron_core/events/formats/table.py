"""Tables of events: parquet, CSV, newline-delimited JSON or Delta, with a mapping of their columns.

CSV and JSON files are parsed line by line, so that a damaged line is rejected without its neighbours. A field must
therefore not contain a line end.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Literal

import polars as pl

from multitron_core.errors import InputError
from multitron_core.events.formats.format import PARSED_COLUMNS, TIME, Files, Format, PreparationRules, SplitRule
from multitron_core.events.formats.text_lines import first_reason, iso_time, out_of_range, renamed, scan_text_lines
from multitron_core.events.raw_files import RawFile
from multitron_core.utils.event_types import EVENT_TYPES

StorageOptions = dict[str, str] | None
_FIELDS = ("session", "item", "time", "type")
_ROW = "row number of this file"  # not the name of a column in any table
_SAMPLE = 1000  # number of ids that decide whether the item ids of a text file are integers
_SEPARATOR = "\x1f"  # between the fields of a line once quotes are removed; text does not contain it


def _default_event_types() -> dict[str, str | None]:
    return {spelling: event_type for event_type in EVENT_TYPES for spelling in (event_type, event_type + "s")}


@dataclass(frozen=True)
class ColumnMapping:
    """Meaning of the columns of a table.

    Args:
        session_id: Column with the id of the session; not used if `user_id` is given.
        user_id: For a log without session ids: column with the id of the user. Sessions end at pauses longer than
            `session_gap`.
        item_id: Column with the id of the item.
        ts: Column with the time: datetimes (UTC if they have no time zone), ISO 8601 text, or numbers since 1970.
        event_type: Column with the type of the event; None if every row is a click.
        event_types: Value of that column -> "click", "cart" or "order"; None for a value that is not used. Rows with
            other values are rejected.
        time_unit: Unit of numeric times.
        item_type: Whether item ids are Int64 or String. "auto" follows the type of the column; in text files, ids are
            integers if at least 95 % of the first 1000 ids are integers without leading zeros.
        session_gap: Longest pause within a session of a user.
        separator: Separator of the fields in a CSV line.
    """

    session_id: str = "session_id"
    user_id: str | None = None
    item_id: str = "item_id"
    ts: str = "ts"
    event_type: str | None = "event_type"
    event_types: Mapping[str, str | None] = field(default_factory=_default_event_types)
    time_unit: Literal["s", "ms", "us"] | None = None
    item_type: Literal["auto", "integer", "string"] = "auto"
    session_gap: timedelta = timedelta(minutes=30)
    separator: str = ","

    def __post_init__(self) -> None:
        wrong = sorted({str(value) for value in self.event_types.values() if value not in (*EVENT_TYPES, None)})
        if wrong:
            raise InputError(
                "unknown event types",
                where="ColumnMapping.event_types",
                found=wrong,
                hint=f"map values to {', '.join(EVENT_TYPES)} or None",
            )
        if self.time_unit not in (None, "s", "ms", "us"):
            raise InputError(
                "unknown time unit", where="ColumnMapping.time_unit", found=self.time_unit, hint="use s, ms or us"
            )
        if self.item_type not in ("auto", "integer", "string"):
            raise InputError(
                "unknown item type",
                where="ColumnMapping.item_type",
                found=self.item_type,
                hint="use auto, integer or string",
            )

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> ColumnMapping:
        """Make a mapping from a settings file: the arguments by name, `session_gap` in minutes.

        Raises:
            InputError: A setting does not exist.
        """
        known = {each.name for each in dataclasses.fields(cls)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise InputError(
                "unknown settings", where="the column mapping", found=unknown, hint=f"the settings are {sorted(known)}"
            )
        gap = settings.get("session_gap")
        return cls(**{**settings, **({} if gap is None else {"session_gap": timedelta(minutes=gap)})})

    def sources(self) -> dict[str, str]:
        """Map the names of fields (session, item, time, type) to columns, for the fields that the table has."""
        columns = {"session": self.user_id or self.session_id, "item": self.item_id, "time": self.ts}
        return columns if self.event_type is None else {**columns, "type": self.event_type}


def _parse(files: Files, columns: ColumnMapping | None, storage_options: StorageOptions) -> pl.LazyFrame:
    mapping = columns or ColumnMapping()
    scans = [_scan(file, mapping, storage_options) for file in files["events"]]
    as_text = all(not file.name.endswith((".parquet", ".delta")) for file in files["events"])
    item_type = _item_type(scans, mapping, as_text=as_text)
    return pl.concat([_events(scan, mapping, item_type) for scan in scans])


def _scan(file: RawFile, mapping: ColumnMapping, storage_options: StorageOptions) -> pl.LazyFrame:
    """Scan a file: the fields as in the file, `broken` (why a line has no fields), `file`, `line`, `text`."""
    name = file.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith((".csv", ".tsv")):
        return _scan_csv(file, mapping, storage_options)
    if name.endswith((".ndjson", ".jsonl")):
        sources = mapping.sources()
        kinds = pl.Struct({name: pl.String for name in (*_FIELDS, "broken")})
        read = partial(_read_json, sources=sources)
        parsed = pl.col("text").map_batches(read, return_dtype=kinds, is_elementwise=True).alias("fields")
        return scan_text_lines([file], storage_options=storage_options).with_columns(parsed).unnest("fields")
    return _scan_typed(file, mapping, storage_options)


def _scan_typed(file: RawFile, mapping: ColumnMapping, storage_options: StorageOptions) -> pl.LazyFrame:
    if file.name.endswith(".delta"):
        rows = pl.scan_delta(file.path, storage_options=storage_options).with_row_index(_ROW, offset=1)
    else:
        rows = pl.scan_parquet(file.path, row_index_name=_ROW, row_index_offset=1, storage_options=storage_options)
    sources = mapping.sources()
    _require(sources, rows.collect_schema().names(), file)
    text = [pl.lit(f"{column}=") + pl.col(column).cast(pl.String).fill_null("null") for column in sources.values()]
    return rows.select(
        *[pl.col(column).alias(name) for name, column in sources.items()],
        *[pl.lit(None, pl.String).alias(name) for name in _FIELDS if name not in sources],
        pl.lit(None, pl.String).alias("broken"),
        pl.lit(file.name).alias("file"),
        pl.col(_ROW).cast(pl.Int64).alias("line"),
        pl.concat_str(text, separator=", ").alias("text"),
    )


def _scan_csv(file: RawFile, mapping: ColumnMapping, storage_options: StorageOptions) -> pl.LazyFrame:
    lines = scan_text_lines([file], storage_options=storage_options)
    header = lines.filter(pl.col("line") == 1).head(1).collect()["text"]
    if not len(header) or header[0] is None:
        raise InputError("a CSV file has no header", where=file.name, hint="add a first line with the column names")
    names = next(csv.reader([header[0].removeprefix("\ufeff")], delimiter=mapping.separator))
    sources = mapping.sources()
    _require(sources, names, file)
    unquoted = pl.col("text").map_batches(
        partial(_unquote, separator=mapping.separator), return_dtype=pl.String, is_elementwise=True
    )
    fields = pl.col("unquoted").str.split(_SEPARATOR)
    wrong_count = pl.col("unquoted").str.count_matches(_SEPARATOR, literal=True) != len(names) - 1
    return (
        lines.filter(pl.col("line") > 1)
        .with_columns(unquoted=unquoted)
        .with_columns(fields=fields, wrong_count=wrong_count)
        .select(
            *[
                pl.col("fields").list.get(names.index(sources[name]), null_on_oob=True).alias(name)
                if name in sources
                else pl.lit(None, pl.String).alias(name)
                for name in _FIELDS
            ],
            first_reason(
                {
                    "empty line": pl.col("text").is_null(),
                    "quotes do not match": pl.col("unquoted").is_null(),
                    f"not {len(names)} fields separated by {mapping.separator}": pl.col("wrong_count"),
                }
            ).alias("broken"),
            "file",
            "line",
            "text",
        )
    )


def _unquote(texts: pl.Series, separator: str) -> pl.Series:
    """Lines with `_SEPARATOR` between the fields and without quotes; null if quotes do not match."""
    unquoted = texts.str.replace_all(separator, _SEPARATOR, literal=True)
    quoted = texts.str.contains('"', literal=True).fill_null(False).arg_true()
    if len(quoted):
        parsed: list[str | None] = []
        for text in texts.gather(quoted):
            try:
                parsed.append(_SEPARATOR.join(next(csv.reader([text], delimiter=separator, strict=True))))
            except (csv.Error, StopIteration):
                parsed.append(None)
        unquoted = unquoted.scatter(quoted, parsed)
    return unquoted


def _read_json(texts: pl.Series, sources: Mapping[str, str]) -> pl.Series:
    rows = [_read_json_line(text, sources) for text in texts]
    return pl.DataFrame(rows, schema={name: pl.String for name in (*_FIELDS, "broken")}, orient="row").to_struct()


def _read_json_line(text: str | None, sources: Mapping[str, str]) -> tuple[str | None, ...]:
    no_fields = (None,) * len(_FIELDS)
    if text is None:
        return (*no_fields, "empty line")
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return (*no_fields, "not JSON")
    if not isinstance(line, dict):
        return (*no_fields, "not a JSON object")
    values = [line.get(sources.get(name, "")) for name in _FIELDS]
    if any(isinstance(value, (dict, list, bool)) for value in values):
        return (*no_fields, "a field is neither text nor number")
    return (*(None if value is None else str(value) for value in values), None)


def _require(sources: Mapping[str, str], names: list[str], file: RawFile) -> None:
    missing = sorted(set(sources.values()) - set(names))
    if missing:
        raise InputError(
            f"the table lacks columns: {', '.join(missing)}",
            where=file.name,
            found=names,
            hint="set the names of the columns in ColumnMapping",
        )


def _item_type(scans: list[pl.LazyFrame], mapping: ColumnMapping, *, as_text: bool) -> pl.DataType:
    if mapping.item_type != "auto":
        return pl.Int64() if mapping.item_type == "integer" else pl.String()
    types = [scan.collect_schema()["item"] for scan in scans]
    if all(each.is_integer() for each in types):
        return pl.Int64()
    if any(each not in (pl.String, pl.Categorical, pl.Enum) for each in types if not each.is_integer()):
        raise InputError(
            "item ids are neither integers nor text",
            where=mapping.item_id,
            found=[str(each) for each in types],
            hint="choose another column",
        )
    if not as_text:
        return pl.String()
    sample = scans[0].filter(pl.col("item").is_not_null()).select("item").head(_SAMPLE).collect()["item"]
    is_integer_text = sample.str.contains(r"^-?(?:0|[1-9][0-9]{0,17})$")
    # Fewer than all, because one damaged line must not turn the ids of a shop into strings.
    return pl.Int64() if len(sample) and int(is_integer_text.sum()) >= 0.95 * len(sample) else pl.String()


def _events(scan: pl.LazyFrame, mapping: ColumnMapping, item_type: pl.DataType) -> pl.LazyFrame:
    ts = _time(scan.collect_schema()["time"], mapping)
    item = pl.col("item").cast(item_type, strict=False)
    used = {value: kind for value, kind in mapping.event_types.items() if kind is not None}
    unused = [value for value, kind in mapping.event_types.items() if kind is None]
    kind = pl.col("type").cast(pl.String)
    event_type = pl.lit("click") if mapping.event_type is None else renamed(kind, used)
    reasons = {
        "event type not used": kind.is_in(unused),
        "session or user id is missing": pl.col("session").cast(pl.String).fill_null("") == "",
        "item id is missing": pl.col("item").cast(pl.String).fill_null("") == "",
        "item id is not an integer": pl.col("item_id").is_null(),
        "time cannot be read": pl.col("ts").is_null(),
        "time out of range": out_of_range(pl.col("ts")),
        "unknown event type": pl.col("event_type").is_null(),
    }
    return (
        scan.with_columns(session_id=pl.col("session").cast(pl.String), item_id=item, ts=ts, event_type=event_type)
        .with_columns(reason=pl.coalesce("broken", first_reason(reasons)))
        .select(PARSED_COLUMNS)
    )


def _time(source: pl.DataType, mapping: ColumnMapping) -> pl.Expr:
    time = pl.col("time")
    if isinstance(source, pl.Datetime):
        utc = time.dt.replace_time_zone("UTC") if source.time_zone is None else time.dt.convert_time_zone("UTC")
        return utc.cast(TIME)
    if source == pl.Date:
        return time.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if source == pl.String and mapping.time_unit is None:
        return _zoned_time(time)
    if (source == pl.String or source.is_numeric()) and mapping.time_unit is not None:
        factor = {"s": 1_000_000, "ms": 1000, "us": 1}[mapping.time_unit]
        number = time.cast(pl.Float64, strict=False) * factor
        # Larger numbers are not times, and microseconds of them might not fit in 64 bits.
        return pl.when(number.abs() < 4e15).then(number).round().cast(pl.Int64, strict=False).cast(TIME)
    raise InputError(
        "the time column has no readable type",
        where=f"ColumnMapping.ts: {mapping.ts}",
        found=str(source),
        hint="set ColumnMapping.time_unit (s, ms or us) for numbers; otherwise use datetimes or ISO 8601 text",
    )


def _zoned_time(text: pl.Expr) -> pl.Expr:
    """UTC time of ISO 8601 text with `Z`, an offset such as +02:00, or no zone (UTC)."""
    offset = text.str.slice(19).str.extract_groups(r"([+-])([0-9]{2}):?([0-9]{2})$").struct
    minutes = offset.field("2").cast(pl.Int64, strict=False) * 60 + offset.field("3").cast(pl.Int64, strict=False)
    signed = pl.when(offset.field("1") == "-").then(-minutes).otherwise(minutes).fill_null(0)
    plain = pl.concat_str(text.str.slice(0, 19), text.str.slice(19).str.replace(r"[+-][0-9]{2}:?[0-9]{2}$", ""))
    return iso_time(plain) - pl.duration(minutes=signed)


FORMAT = Format(
    name="table",
    roles={"events": r"\.(parquet|delta|(csv|tsv|ndjson|jsonl)(\.gz|\.zst)?)$"},
    parse=_parse,
    rules=PreparationRules(split=SplitRule(by="first", days=1, anchor="midnight")),
)
