"""Lines of text files, and expressions that parse them; every text format is built on these functions.

A file becomes rows (file, line, text). A format splits the text into fields, casts them without raising errors, and
gives the reason for each line that is not an event. Files may be compressed with gzip or zstd.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from multitron_core.events.formats.format import EARLIEST, LATEST, TIME
from multitron_core.events.raw_files import RawFile


def scan_text_lines(
    files: Sequence[RawFile], *, header: str | None = None, storage_options: dict[str, str] | None = None
) -> pl.LazyFrame:
    """Scan the lines of files.

    Args:
        files: The files, read in this order.
        header: Text of a header; a first line with this text is skipped.
        storage_options: Options of the object store, as polars takes them.

    Returns:
        Lazy frame: `file` String, `line` Int64 (from 1), `text` String (null for an empty line; bytes that are not
        UTF-8 become U+FFFD).
    """
    # A CSV file whose separator is the line end has one column, the line. `pl.scan_lines` fails for the whole file at
    # the first byte that is not UTF-8.
    scans = [
        pl.scan_csv(
            file.path,
            schema={"text": pl.String},
            separator="\n",
            quote_char=None,
            encoding="utf8-lossy",
            has_header=False,
            row_index_name="line",
            row_index_offset=1,
            storage_options=storage_options,
        ).with_columns(pl.lit(file.name).alias("file"))
        for file in files
    ]
    lines = pl.concat(scans).with_columns(pl.col("line").cast(pl.Int64))
    if header is not None:
        is_header = (pl.col("line") == 1) & pl.col("text").str.strip_prefix("\ufeff").eq_missing(pl.lit(header))
        lines = lines.filter(~is_header)
    return lines


def split_fields(lines: pl.LazyFrame, names: Sequence[str], separator: str) -> pl.LazyFrame:
    """Add one String column per field. Missing fields are null; the last column keeps all surplus text."""
    fields = pl.col("text").str.splitn(separator, len(names)).struct.rename_fields(list(names))
    return lines.with_columns(fields.alias("fields")).unnest("fields")


def first_reason(reasons: dict[str, pl.Expr]) -> pl.Expr:
    """The first reason whose condition is true; null if none is. A null condition counts as false."""
    return pl.coalesce(*[pl.when(condition).then(pl.lit(reason)) for reason, condition in reasons.items()])


def renamed(text: pl.Expr, names: Mapping[str, str]) -> pl.Expr:
    """`names[text]`, or null for a text that is not in `names`.

    The result equals that of `replace_strict`, which the streaming engine does not run batch by batch: with 1 GB of
    input it needed five times the memory.
    """
    return pl.coalesce(
        [pl.when(text == old).then(pl.lit(new)) for old, new in names.items()] or pl.lit(None, pl.String)
    )


def is_integer(text: pl.Expr) -> pl.Expr:
    """Whether a text is a 64-bit integer."""
    return text.cast(pl.Int64, strict=False).is_not_null()


def iso_time(text: pl.Expr) -> pl.Expr:
    """UTC time of text such as `2014-04-07T10:51:09.277Z`; null if the text has another form.

    A space may replace `T`, the seconds may have any number of decimals, and `Z` is optional.
    """
    # Whole seconds use the fast parser of fixed formats; the fraction is parsed as a number.
    seconds = text.str.slice(0, 19).str.replace(" ", "T", literal=True)
    fraction = text.str.slice(19).str.strip_suffix("Z")
    microseconds = (
        pl.when(fraction == "")
        .then(0)
        .when(fraction.str.starts_with("."))
        .then((fraction.cast(pl.Float64, strict=False) * 1e6).round())
    )
    whole_seconds = seconds.str.to_datetime("%Y-%m-%dT%H:%M:%S", time_unit="us", strict=False, cache=False)
    return (whole_seconds + pl.duration(microseconds=microseconds.cast(pl.Int64))).dt.replace_time_zone("UTC")


def out_of_range(ts: pl.Expr) -> pl.Expr:
    """Whether a time is outside the range from `EARLIEST` to `LATEST`."""
    early, late = (
        pl.lit(bound).str.to_datetime("%Y-%m-%d", time_zone="UTC").cast(TIME) for bound in (EARLIEST, LATEST)
    )
    return (ts < early) | (ts >= late)
