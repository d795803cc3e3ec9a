"""What the tables promise their readers: columns, types, comments, partitions.

The policy. Within a contract version columns are never renamed, removed, retyped or made nullable, partitions stay as
they are, and what a column means does not change. Anything else (a new column at the end included) is announced by
raising `CONTRACT_VERSION`, which every table carries as the property `multitron.contract`.

Only NOT NULL and types are enforced by Delta itself: CHECK constraints would ask for writer version 3, while reader
version 1 and writer version 2 are what every engine reads and writes. The rest (dense ranks, falling scores, known
items) is checked on every row before the commit, see `ranked_lists`.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from deltalake import Field, Schema
from deltalake.schema import PrimitiveType

from multitron_core.errors import InputError

CONTRACT_VERSION = "1"
CONTRACT_PROPERTY = "multitron.contract"
PUBLISHED = "published"
CHANNELS = "channels"

DELTA_TYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "short": pl.Int16(),
    "integer": pl.Int32(),
    "long": pl.Int64(),
    "float": pl.Float32(),
    "double": pl.Float64(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us", "UTC"),
}


@dataclass(frozen=True)
class Column:
    """A column of a table; never null."""

    name: str
    type: str  # a key of DELTA_TYPES
    comment: str


@dataclass(frozen=True)
class TableContract:
    """What one table promises.

    Args:
        name: the table's name, which is its folder under the lake's root.
        description: what a row is, one or two sentences.
        columns: in the order in which the table has them.
        partition_by: the columns that name a partition.
        list_key: the column that names a ranked list (`session_id`), or None for a table without ranked lists.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    partition_by: tuple[str, ...]
    list_key: str | None = None

    def delta_schema(self) -> Schema:
        """The schema as Delta has it: NOT NULL throughout, with comments."""
        return Schema(
            [
                Field(column.name, PrimitiveType(column.type), nullable=False, metadata={"comment": column.comment})
                for column in self.columns
            ]
        )

    def polars_schema(self) -> pl.Schema:
        """The schema as polars reads it."""
        return pl.Schema({column.name: DELTA_TYPES[column.type] for column in self.columns})


def delta_item_type(item_type: pl.DataType | type[pl.DataType]) -> str:
    """ "long" or "string" for `Int64` or `String` item ids.

    Raises:
        InputError: any other type.
    """
    if item_type == pl.Int64:
        return "long"
    if item_type == pl.String:
        return "string"
    raise InputError("item ids must be Int64 or String", found=str(item_type), hint="cast the item ids first")


def recommendations(item_type: pl.DataType | type[pl.DataType]) -> TableContract:
    """The contract of `recommendations`: the best items of each session, per night and preference."""
    return TableContract(
        "recommendations",
        "The k best items of each session, one item a row, per night (run_date) and preference (pi). Within a file "
        "rows are sorted by session_id, then rank. A partition (run_date, pi) is always whole.",
        (
            Column("session_id", "string", "The session that the items are for, by the shop's own id."),
            *_tail(item_type),
        ),
        ("run_date", "pi"),
        list_key="session_id",
    )


def item_recommendations(item_type: pl.DataType | type[pl.DataType]) -> TableContract:
    """The contract of `item_recommendations`: what to show beside each item, per night and preference."""
    return TableContract(
        "item_recommendations",
        "The k best items beside each item, one a row, per night (run_date) and preference (pi): the item is scored as "
        "a session of one click. Within a file rows are sorted by for_item_id, then rank.",
        (
            Column("for_item_id", delta_item_type(item_type), "The item on whose page the others are shown."),
            *_tail(item_type),
        ),
        ("run_date", "pi"),
        list_key="for_item_id",
    )


def fallback_recommendations(item_type: pl.DataType | type[pl.DataType]) -> TableContract:
    """The contract of `fallback_recommendations`: what to show without a history, per night and preference."""
    return TableContract(
        "fallback_recommendations",
        "The k best items for a visitor without history, one a row, per night (run_date) and preference (pi).",
        (
            Column("audience", "string", 'Whom the list is for; "all" is everybody.'),
            *_tail(
                item_type,
                "How often and how high the night's sessions are shown the item: the mean of 1 / log2(rank + 1) over "
                "their lists, 0 where it is not in a list; 1 is the first place of every list.",
            ),
        ),
        ("run_date", "pi"),
        list_key="audience",
    )


def published() -> TableContract:
    """The contract of `published`: what has been checked and released to the readers."""
    return TableContract(
        PUBLISHED,
        "One row for each partition (table_name, run_date, pi) that was written, checked and released. The latest row "
        "of a preference names the night to read; delta_version is the version of the table to read it at.",
        (
            Column("run_date", "date", "The night's date (UTC)."),
            Column("pi", "string", "The preference's key."),
            Column("table_name", "string", "The table that the partition belongs to."),
            Column("model_version", "string", "The deployed model version that gave the scores."),
            Column("delta_version", "long", "The Delta version of the table at which the partition was checked."),
            Column("rows", "long", "Rows of the partition."),
            Column("lists", "long", "Ranked lists of the partition: its sessions, or items."),
            Column("checksum", "string", "SHA-256 over names, sizes and rows of the partition's files."),
            Column("published_at", "timestamp", "When the row was committed (UTC)."),
        ),
        ("run_date", "pi", "table_name"),
    )


def channels() -> TableContract:
    """The contract of `channels`: who reads which table at which preference."""
    return TableContract(
        CHANNELS,
        "One row for each use of the tables (a newsletter, the home page): which table it reads, at which preference, "
        "how many items, and which items it leaves out.",
        (
            Column("name", "string", "The channel's name."),
            Column("owner", "string", "Whom to ask or to warn."),
            Column("table_name", "string", "The table of ranked lists that it reads."),
            Column("pi", "string", "The preference that it reads."),
            Column("k", "integer", "Items a list."),
            Column("exclude_items", "string", "Item ids that are left out, a JSON list of texts."),
            Column(
                "chosen_by", "string", '"pi" where the owner named the preference, else the objective that chose it.'
            ),
        ),
        (),
    )


def _tail(
    item_type: pl.DataType | type[pl.DataType],
    score: str = "The model's score; falls with rank, comparable within one list only.",
) -> tuple[Column, ...]:
    """The columns that every table of ranked lists ends with; `score` says what the score is."""
    return (
        Column("rank", "short", "Place in the list: 1 is the best, without gaps."),
        Column("item_id", delta_item_type(item_type), "The recommended item, by the shop's own id."),
        Column("score", "float", score),
        Column(
            "pi", "string", 'The preference: weight on orders with two decimals, "0.00" (clicks) to "1.00" (orders).'
        ),
        Column("pi_click", "double", "Weight on clicks, 1 - pi_order."),
        Column("pi_order", "double", "Weight on orders: pi as a number."),
        Column("model_version", "string", "The deployed model version that gave the scores."),
        Column("run_date", "date", "The night's date (UTC)."),
    )


def contracts(item_type: pl.DataType | type[pl.DataType]) -> dict[str, TableContract]:
    """Every table under contract, by name, for a shop whose item ids are `Int64` or `String`."""
    tables = (
        recommendations(item_type),
        item_recommendations(item_type),
        fallback_recommendations(item_type),
        published(),
        channels(),
    )
    return {table.name: table for table in tables}


LIST_TABLES = ("recommendations", "item_recommendations", "fallback_recommendations")
"""The tables of ranked lists that a night writes and releases together."""
