"""Check ranked lists in a stream: exactly k items per list, ranks 1..k, non-increasing scores, no repeated item.

The checks run before the commit, so that readers never see rows that fail. An asset check would run after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeAlias, runtime_checkable

import polars as pl

from multitron_core.errors import InputError


@runtime_checkable
class HasItemIds(Protocol):
    """An object with item ids, for example a `sessions.Vocabulary`."""

    @property
    def item_ids(self) -> pl.Series:
        """Item ids of the shop, Int64 or String."""
        ...


KnownItems: TypeAlias = HasItemIds | pl.Series | Iterable[int] | Iterable[str]
"""Items that may occur in lists."""


def checked_lists(
    batches: Iterable[pl.DataFrame],
    *,
    key: str,
    key_type: pl.DataType,
    item_type: pl.DataType,
    k: int,
    items: KnownItems | None = None,
    expected_lists: int | None = None,
) -> Iterator[pl.DataFrame]:
    """Yield the same rows in the same order after checking that they are ranked lists.

    A list may be split between two batches. Nothing is repaired: the first violation ends the stream.

    Args:
        batches: Frames with the columns `key`, `rank`, `item_id`, `score`, sorted by key, then rank.
        key: Column that identifies a list, for example `session_id`.
        key_type: Type of the key column.
        item_type: Type of `item_id`.
        k: Number of items in every list, 1 to 32,767.
        items: Items that are allowed; None skips this check.
        expected_lists: Required number of lists; None accepts any number above 0.

    Yields:
        Frames with the columns `key`, `rank` (Int16), `item_id`, `score` (Float32); complete lists, never empty.

    Raises:
        InputError: A rule is violated; the message contains the list, the rank and the value.
    """
    if not 1 <= k <= 32_767:
        raise InputError("k lies outside 1..32767", found=k, hint="use at least 1 item per list")
    known = None if items is None else _sorted_items(items, item_type)
    schema = pl.Schema({key: key_type, "rank": pl.Int16(), "item_id": item_type, "score": pl.Float32()})
    kept = pl.DataFrame(schema=schema)  # the start of a list that continues in the next batch
    previous = None  # key of the last complete list
    lists = 0
    for batch in batches:
        if batch.is_empty():
            continue
        frame = _typed(batch, schema)
        if len(kept):
            frame = pl.concat([kept, frame])
        complete = len(frame) - _open_rows(frame[key], k)
        kept, frame = frame[complete:], frame[:complete]
        if frame.is_empty():
            continue
        _check(frame, key, k, previous)
        if known is not None:
            _check_known(frame, key, known)
        previous = frame[key][-1]
        lists += len(frame) // k
        yield frame.rechunk()
    if len(kept):
        raise InputError(
            f"a list has {len(kept)} items, not {k}",
            where=f"{key} {kept[key][0]!r}",
            found=kept["rank"].to_list(),
            hint=f"write exactly {k} items in every list",
        )
    if not lists:
        raise InputError("there are no rows to write", hint="score at least one list")
    if expected_lists is not None and lists != expected_lists:
        raise InputError(
            "unexpected number of lists",
            where=f"distinct {key}",
            found=lists,
            hint=f"expected {expected_lists}; score all of them before writing",
        )


def _sorted_items(items: KnownItems, item_type: pl.DataType) -> pl.Series:
    """Distinct known items, sorted."""
    series = items.item_ids if isinstance(items, HasItemIds) else items
    if not isinstance(series, pl.Series):
        series = pl.Series(list(series), dtype=item_type)
    if series.dtype != item_type:
        raise InputError(
            "the known items have another type than the table's",
            found=str(series.dtype),
            hint=f"the table's item_id is {item_type}",
        )
    return series.unique().sort()


def _typed(batch: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """Select the columns of `schema` and cast ranks and scores from wider types; ids must have the exact type."""
    if set(batch.columns) != set(schema):
        raise InputError("a batch has unexpected columns", found=batch.columns, hint=f"pass {list(schema)}")
    key = next(iter(schema))
    for name in (key, "item_id"):
        if batch.schema[name] != schema[name]:
            raise InputError(
                "a column has the wrong type",
                where=name,
                found=str(batch.schema[name]),
                hint=f"cast it to {schema[name]} before writing",
            )
    if not batch.schema["rank"].is_integer() or not batch.schema["score"].is_float():
        raise InputError(
            "ranks must be integers and scores floating point numbers",
            found={name: str(batch.schema[name]) for name in ("rank", "score")},
            hint="pass rank as Int16 and score as Float32",
        )
    frame = batch.select(schema.names())
    for name, nulls in frame.null_count().row(0, named=True).items():
        if nulls:
            row = frame.filter(pl.col(name).is_null()).row(0, named=True)
            raise InputError("a value is missing", where=name, found=row, hint="fill every column of every row")
    # A rank beyond Int16 becomes null; -1 instead fails the check of ranks, whose error shows the row.
    return frame.with_columns(
        pl.col("rank").cast(pl.Int16, strict=False).fill_null(-1), pl.col("score").cast(pl.Float32)
    )


def _open_rows(keys: pl.Series, k: int) -> int:
    """Number of rows at the end that belong to a list which may continue in the next batch."""
    last = keys.tail(k)
    rows = int((last == last[-1]).sum())
    return rows if rows < k else 0


def _check(frame: pl.DataFrame, key: str, k: int, previous: str | int | None) -> None:
    """Raise an InputError unless the frame consists of complete lists of k rows whose keys follow `previous`."""
    place = pl.int_range(pl.len()) % k
    first = place == 0
    cut_short = pl.int_range(pl.len()) >= len(frame) - len(frame) % k
    before = pl.col(key).shift(1) if previous is None else pl.col(key).shift(1, fill_value=previous)
    rules = {
        f"ranks must run 1..{k} in every list": pl.col("rank") != place + 1,
        f"a list must have exactly {k} items": (~first & (pl.col(key) != before)) | cut_short,
        f"lists must be sorted by {key}, and each may occur only once": first & (pl.col(key) <= before),
        "scores must be finite": ~pl.col("score").is_finite(),
        "scores must not rise with rank": ~first & (pl.col("score") > pl.col("score").shift(1)),
        "no item may occur twice in a list": pl.struct(pl.int_range(pl.len()) // k, "item_id").is_duplicated(),
    }
    for rule, broken in rules.items():
        rows = frame.lazy().with_row_index("row").filter(broken.fill_null(False)).head(1).collect()
        if len(rows):
            _refuse(rule, rows, key, k)


def _refuse(rule: str, rows: pl.DataFrame, key: str, k: int) -> None:
    found = rows.drop("row").row(0, named=True)
    raise InputError(
        rule,
        where=f"{key} {found[key]!r}, rank {found['rank']}",
        found=found,
        hint=f"write complete lists of {k} items, sorted by {key}, then rank",
    )


def _check_known(frame: pl.DataFrame, key: str, known: pl.Series) -> None:
    """Raise an InputError if an item is missing in `known`, which is sorted."""
    found = frame["item_id"].unique()
    if len(known):
        places = known.search_sorted(found).clip(upper_bound=len(known) - 1)
        found = found.filter(known.gather(places) != found)
    if len(found):
        row = frame.filter(pl.col("item_id") == found[0]).row(0, named=True)
        raise InputError(
            "an item is not in the vocabulary",
            where=f"{key} {row[key]!r}, rank {row['rank']}",
            found=row["item_id"],
            hint="use the vocabulary that the model was trained with",
        )
