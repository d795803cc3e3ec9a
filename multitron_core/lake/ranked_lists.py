"""Ranked lists, checked while they stream by: whole lists of k items, ranks 1..k, falling scores, no item twice.

An asset check runs after the commit, when readers have already seen the rows; this runs before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import polars as pl

from multitron_core.errors import InputError
from multitron_core.sessions.vocabulary import Vocabulary

LIST_COLUMNS = ("rank", "item_id", "score")


def checked_lists(
    batches: Iterable[pl.DataFrame],
    *,
    key: str,
    key_type: pl.DataType,
    item_type: pl.DataType,
    k: int,
    items: Vocabulary | pl.Series | Iterable[int] | Iterable[str] | None = None,
    expected_lists: int | None = None,
) -> Iterator[pl.DataFrame]:
    """The same rows in the same order, once they are proven to be ranked lists.

    A list may be split between two batches. Nothing is repaired: the first violation ends the stream.

    Args:
        batches: frames with the columns `key`, `rank`, `item_id`, `score`, sorted by key, then rank.
        key: the column that names a list, for example `session_id`.
        key_type: its type.
        item_type: type of `item_id`.
        k: items a list, every list has exactly so many.
        items: the items that may occur; None leaves them unchecked.
        expected_lists: how many lists must come; None takes any number above 0.

    Yields:
        Frames `key`, `rank` (Int16), `item_id`, `score` (Float32) of whole lists, never empty.

    Raises:
        InputError: naming the list, the rank and the value that is wrong.
    """
    if not 1 <= k <= 32_767:
        raise InputError("k lies outside 1..32767", found=k, hint="ask for at least one item a list")
    known = None if items is None else _sorted_items(items, item_type)
    schema = pl.Schema({key: key_type, "rank": pl.Int16(), "item_id": item_type, "score": pl.Float32()})
    kept = pl.DataFrame(schema=schema)  # the beginning of a list whose end is in the next batch
    previous = None  # key of the last whole list
    lists = 0
    for batch in batches:
        if batch.is_empty():
            continue
        frame = _typed(batch, schema)
        if len(kept):
            frame = pl.concat([kept, frame])
        whole = len(frame) - _open_rows(frame[key], k)
        kept, frame = frame[whole:], frame[:whole]
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
            hint=f"give every list exactly {k} items",
        )
    if not lists:
        raise InputError("there are no rows to write", hint="score at least one list")
    if expected_lists is not None and lists != expected_lists:
        raise InputError(
            "the number of lists is not the expected one",
            where=f"distinct {key}",
            found=lists,
            hint=f"expected {expected_lists}; score all of them before writing",
        )


def _sorted_items(items: Vocabulary | pl.Series | Iterable[int] | Iterable[str], item_type: pl.DataType) -> pl.Series:
    series = items.item_ids if isinstance(items, Vocabulary) else items
    if not isinstance(series, pl.Series):
        series = pl.Series(list(series), dtype=item_type)
    if series.dtype != item_type:
        raise InputError(
            "the known items are of another type than the table's",
            found=str(series.dtype),
            hint=f"the table's item_id is {item_type}",
        )
    return series.unique().sort()


def _typed(batch: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """The batch with exactly the columns and types of `schema`; ranks and scores may come wider, ids may not."""
    if set(batch.columns) != set(schema):
        raise InputError("a batch has other columns than expected", found=batch.columns, hint=f"give {list(schema)}")
    key = next(iter(schema))
    for name in (key, "item_id"):
        if batch.schema[name] != schema[name]:
            raise InputError(
                "a column is of the wrong type",
                where=name,
                found=str(batch.schema[name]),
                hint=f"cast it to {schema[name]} before writing",
            )
    if not batch.schema["rank"].is_integer() or not batch.schema["score"].is_float():
        raise InputError(
            "ranks must be integers and scores floating point numbers",
            found={name: str(batch.schema[name]) for name in ("rank", "score")},
            hint="give rank as Int16 and score as Float32",
        )
    frame = batch.select(schema.names())
    for name, nulls in frame.null_count().row(0, named=True).items():
        if nulls:
            row = frame.filter(pl.col(name).is_null()).row(0, named=True)
            raise InputError("a value is missing", where=name, found=row, hint="give every row every value")
    # A rank that Int16 cannot hold becomes null and is then no dense rank; fill so that the error can show it.
    return frame.with_columns(
        pl.col("rank").cast(pl.Int16, strict=False).fill_null(-1), pl.col("score").cast(pl.Float32)
    )


def _open_rows(keys: pl.Series, k: int) -> int:
    """Rows at the end that belong to a list which may go on in the next batch."""
    last = keys.tail(k)
    rows = int((last == last[-1]).sum())
    return rows if rows < k else 0


def _check(frame: pl.DataFrame, key: str, k: int, previous: str | int | None) -> None:
    """Refuse the frame unless it is whole lists of k rows each, after `previous`."""
    place = pl.int_range(pl.len()) % k
    first = place == 0
    cut_short = pl.int_range(pl.len()) >= len(frame) - len(frame) % k
    before = pl.col(key).shift(1) if previous is None else pl.col(key).shift(1, fill_value=previous)
    rules = {
        f"ranks must run 1..{k} in every list": pl.col("rank") != place + 1,
        f"a list must have exactly {k} items": (~first & (pl.col(key) != before)) | cut_short,
        f"lists must come sorted by {key}, and each only once": first & (pl.col(key) <= before),
        "scores must be finite": ~pl.col("score").is_finite(),
        "scores must not rise with rank": ~first & (pl.col("score") > pl.col("score").shift(1)),
        "no item may come twice in a list": pl.struct(pl.int_range(pl.len()) // k, "item_id").is_duplicated(),
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
        hint=f"write whole lists of {k} items, sorted by {key}, then rank",
    )


def _check_known(frame: pl.DataFrame, key: str, known: pl.Series) -> None:
    """Refuse an item that `known` (sorted) does not have."""
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
            hint="score with the vocabulary that the model was trained with",
        )
