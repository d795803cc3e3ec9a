"""Lines of text files: the one mechanism behind every text format.

A file becomes rows (file, line, text); a format splits the text into fields, casts them without raising, and says for
each line why it is no event. gzip and zstd files are read as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from multitron_core.events.formats.format import EARLIEST, LATEST, TIME
from multitron_core.events.raw_files import RawFile


def scan_text_lines(
    files: Sequence[RawFile], *, header: str | None = None, storage_options: dict[str, str] | None = None
) -> pl.LazyFrame:
    """Every line of the files.

    Args:
        files: read in this order.
        header: a first line with this text is left out.
        storage_options: for object stores, as polars takes them.

    Returns:
        Lazy `file` String, `line` Int64 (from 1), `text` String (null for an empty line; bytes that are not UTF-8
        become U+FFFD).
    """
    # A CSV whose separator is its line end has one column, the line. `pl.scan_lines` would do the same but gives up
    # on the whole file at the first byte that is not UTF-8.
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
    """`lines` with a String column a field; a field that the line lacks is null, what is too much is in the last."""
    fields = pl.col("text").str.splitn(separator, len(names)).struct.rename_fields(list(names))
    return lines.with_columns(fields.alias("fields")).unnest("fields")


def first_reason(reasons: dict[str, pl.Expr]) -> pl.Expr:
    """The first reason whose condition holds (null counts as not), null when none does."""
    return pl.coalesce(*[pl.when(condition).then(pl.lit(reason)) for reason, condition in reasons.items()])


def renamed(text: pl.Expr, names: Mapping[str, str]) -> pl.Expr:
    """`names[text]`, null for a text that has none.

    The same as `replace_strict`, which the streaming engine does not do batch by batch: at 1 GB of input it took five
    times the memory.
    """
    return pl.coalesce(
        [pl.when(text == old).then(pl.lit(new)) for old, new in names.items()] or pl.lit(None, pl.String)
    )


def is_integer(text: pl.Expr) -> pl.Expr:
    """Whether a text is an integer of 64 bits."""
    return text.cast(pl.Int64, strict=False).is_not_null()


def iso_time(text: pl.Expr) -> pl.Expr:
    """UTC time of `2014-04-07T10:51:09.277Z` (`T` or a space, any decimals, `Z` or nothing); else null."""
    # Whole seconds go through the fast parser of fixed formats; the fraction is a number of its own.
    seconds = text.str.slice(0, 19).str.replace(" ", "T", literal=True)
    fraction = text.str.slice(19).str.strip_suffix("Z")
    microseconds = (
        pl.when(fraction == "")
        .then(0)
        .when(fraction.str.starts_with("."))
        .then((fraction.cast(pl.Float64, strict=False) * 1e6).round())
    )
    whole = seconds.str.to_datetime("%Y-%m-%dT%H:%M:%S", time_unit="us", strict=False, cache=False)
    return (whole + pl.duration(microseconds=microseconds.cast(pl.Int64))).dt.replace_time_zone("UTC")


def out_of_range(ts: pl.Expr) -> pl.Expr:
    """Whether a time lies outside the years that shop events can have."""
    early, late = (
        pl.lit(bound).str.to_datetime("%Y-%m-%d", time_zone="UTC").cast(TIME) for bound in (EARLIEST, LATEST)
    )
    return (ts < early) | (ts >= late)
