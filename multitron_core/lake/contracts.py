"""Contracts of the Delta tables: columns, types, comments and partitions that readers can rely on.

Policy: within one contract version, columns keep their name, type, NOT NULL and meaning, and partition columns stay the
same. Every other change, including a new column at the end, raises `CONTRACT_VERSION`. Each table stores this version
as the property `multitron.contract`. Column comments and table descriptions are part of the contract as well.

Delta itself enforces only types and NOT NULL. CHECK constraints would need writer version 3, whereas every engine can
read version 1 and write version 2. The other rules (dense ranks, non-increasing scores, known items) are checked for
every row before the commit, see `ranked_lists`.
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
    """A column of a table; all columns are NOT NULL."""

    name: str
    type: str  # a key of DELTA_TYPES
    comment: str


@dataclass(frozen=True)
class TableContract:
    """The contract of one table.

    Args:
        name: Name of the table and of its folder below the root of the lake.
        description: What a row contains, one or two sentences.
        columns: Columns in the order of the table.
        partition_by: Names of the partition columns.
        list_key: Column that identifies a ranked list, for example `session_id`; None for a table without lists.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    partition_by: tuple[str, ...]
    list_key: str | None = None

    def delta_schema(self) -> Schema:
        """The Delta schema: every column NOT NULL, with its comment."""
        return Schema(
            [
                Field(column.name, PrimitiveType(column.type), nullable=False, metadata={"comment": column.comment})
                for column in self.columns
            ]
        )

    def polars_schema(self) -> pl.Schema:
        """The polars schema of the table."""
        return pl.Schema({column.name: DELTA_TYPES[column.type] for column in self.columns})


def delta_item_type(item_type: pl.DataType | type[pl.DataType]) -> str:
    """Delta type of the item ids: "long" for `Int64`, "string" for `String`.

    Raises:
        InputError: Any other type.
    """
    if item_type == pl.Int64:
        return "long"
    if item_type == pl.String:
        return "string"
    raise InputError("item ids must be Int64 or String", found=str(item_type), hint="cast the item ids first")


def recommendations(item_type: pl.DataType | type[pl.DataType]) -> TableContract:
    """Contract of `recommendations`: the best items for each session, per night and preference."""
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
    """Contract of `item_recommendations`: the best items to show with each item, per night and preference."""
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
    """Contract of `fallback_recommendations`: the best items without a history, per night and preference."""
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
    """Contract of `published`: the partitions that were checked and made visible to readers."""
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
    """Contract of `channels`: which consumer reads which table at which preference."""
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
    """The last columns of every table of ranked lists; `score` is the comment of the column `score`."""
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


def table_contracts(item_type: pl.DataType | type[pl.DataType]) -> dict[str, TableContract]:
    """Contracts of all tables by table name.

    Args:
        item_type: `pl.Int64` or `pl.String`, the type of the shop's item ids.

    Raises:
        InputError: Any other item type.
    """
    tables = (
        recommendations(item_type),
        item_recommendations(item_type),
        fallback_recommendations(item_type),
        published(),
        channels(),
    )
    return {table.name: table for table in tables}


LIST_TABLES = ("recommendations", "item_recommendations", "fallback_recommendations")
"""Tables of ranked lists, which a night writes and publishes together."""
