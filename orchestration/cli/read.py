"""`multitron read`: released recommendations on the screen or in a file. Loads without torch, so it starts fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from multitron_core.errors import InputError
from multitron_core.lake.channels import read_channel
from multitron_core.lake.lake import Lake
from multitron_core.utils.text_table import as_table
from orchestration.shop.home import load_shop

CommandResult = tuple[str, Any]
"""What a subcommand returns: the text that it prints, and the value that --json prints."""


def read(
    home: Path | None,
    *,
    channel: str | None,
    pi: str | None,
    date: str,
    table: str,
    keys: Sequence[str],
    limit: int,
    out: Path | None,
) -> CommandResult:
    """`multitron read`: the rows of the lists, at most `limit` of them, or the path of the file `out`.

    Args:
        home: of the shop; None for the default.
        channel: name of a channel; None to read by `pi`.
        pi: key of a preference; None to read by `channel`.
        date: run date as 2026-01-08, or "latest".
        table: one of the list tables; ignored with a channel.
        keys: sessions or items whose lists to read; empty for all.
        limit: maximum number of rows printed.
        out: file that receives all rows; None prints them.

    Raises:
        InputError: the suffix of `out` is unknown, a key has the wrong type, or nothing is released.
    """
    lake = load_shop(home).lake()
    keyed_table = table if channel is None else read_channel(lake, channel)["table_name"]
    lists = lake.read_recommendations(
        pi, date, channel=channel, session_ids=_typed(lake, keyed_table, keys) if keys else None, table=table
    )
    if out is not None:
        writers: dict[str, Callable[[Path], Any]] = {
            ".parquet": lists.write_parquet,
            ".csv": lists.write_csv,
            ".ndjson": lists.write_ndjson,
        }
        if out.suffix not in writers:
            raise InputError("unknown file type", found=out.name, hint=f"use one of {', '.join(writers)}")
        writers[out.suffix](out)
        return f"{lists.height} rows: {out}", {"rows": lists.height, "out": str(out)}
    text = as_table(lists.head(limit))
    if lists.height > limit:
        text += f"\n{lists.height - limit} more rows; --limit prints more, --out writes all"
    return text, lists.head(limit).to_dicts()


def _typed(lake: Lake, table: str, keys: Sequence[str]) -> list[str] | list[int]:
    """Keys in the type of the table's key column: session ids are strings, item ids may be integers."""
    contract = lake.contract(table, lake.open(table))
    if contract.polars_schema()[contract.list_key or ""] != pl.Int64:
        return list(keys)
    try:
        return [int(key) for key in keys]
    except ValueError as error:
        raise InputError(
            "the keys of this table are integers", where=table, found=list(keys), hint="use the item ids of the shop"
        ) from error
