"""What `multitron read` does, without torch: who reads lists does not wait for it."""

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

Answer = tuple[str, Any]
"""The text for a person, and the value that --json prints."""


def read(
    home: Path,
    *,
    channel: str | None,
    pi: str | None,
    date: str,
    table: str,
    keys: Sequence[str],
    limit: int,
    out: Path | None,
) -> Answer:
    """`multitron read`."""
    lake = load_shop(home).lake()
    keyed = table if channel is None else read_channel(lake, channel)["table_name"]
    lists = lake.read_recommendations(
        pi, date, channel=channel, session_ids=_typed(lake, keyed, keys) if keys else None, table=table
    )
    if out is not None:
        writers: dict[str, Callable[[Path], Any]] = {
            ".parquet": lists.write_parquet,
            ".csv": lists.write_csv,
            ".ndjson": lists.write_ndjson,
        }
        if out.suffix not in writers:
            raise InputError("unknown kind of file", found=out.name, hint=f"end it in one of {', '.join(writers)}")
        writers[out.suffix](out)
        return f"{lists.height} rows: {out}", {"rows": lists.height, "out": str(out)}
    text = as_table(lists.head(limit))
    if lists.height > limit:
        text += f"\n{lists.height - limit} more rows; --limit shows more, --out writes all"
    return text, lists.head(limit).to_dicts()


def _typed(lake: Lake, table: str, keys: Sequence[str]) -> list[str] | list[int]:
    """Keys as the table has them: sessions are texts, items may be integers."""
    contract = lake.contract(table, lake.open(table))
    if contract.polars_schema()[contract.list_key or ""] != pl.Int64:
        return list(keys)
    try:
        return [int(key) for key in keys]
    except ValueError as error:
        raise InputError(
            "the keys of this table are integers", where=table, found=list(keys), hint="name items as the shop does"
        ) from error
