"""Replacing rows by a key: rows, types and keys that are accepted or refused."""

from __future__ import annotations

from datetime import date, datetime

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.lake.lake import Lake
from multitron_core.lake.replace_where import Key, checked_date, replace_rows


def test_replace_rows_touches_only_rows_of_the_key(lake: Lake) -> None:
    epochs = pl.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.4]})
    commit = replace_rows(lake, "metrics", epochs, key={"model_version": "7"})
    assert (commit.table, commit.rows, commit.delta_version) == ("metrics", 2, 1)
    lake.replace_rows("metrics", epochs.lazy().with_columns(seconds=1.5), key={"model_version": "8"})
    lake.replace_rows("metrics", epochs.head(1), key={"model_version": "7"})
    read = pl.read_delta(lake.uri("metrics")).sort("model_version", "epoch")
    assert read.select("model_version", "epoch", "seconds").rows() == [("7", 1, None), ("8", 1, 1.5), ("8", 2, 1.5)]


def test_replace_rows_without_a_key_replaces_all(lake: Lake) -> None:
    lake.replace_rows("front", pl.DataFrame({"pi": ["0.00", "1.00"], "rank": pl.Series([1, 2], dtype=pl.UInt32)}))
    assert pl.read_delta(lake.uri("front")).schema == {"pi": pl.String, "rank": pl.Int64}
    lake.replace_rows("front", pl.DataFrame({"point": [1]}))
    assert pl.read_delta(lake.uri("front")).rows(named=True) == [{"point": 1}]


def test_replace_rows_accepts_columns_of_the_key(lake: Lake) -> None:
    key: Key = {"run_date": date(2026, 1, 31), "name": "x"}
    rows = pl.DataFrame({"run_date": [date(2026, 1, 31)] * 2, "value": [1, 2]})
    lake.replace_rows("metrics", rows, key=key)
    assert pl.read_delta(lake.uri("metrics")).sort("value").rows() == [
        (date(2026, 1, 31), "x", 1),
        (date(2026, 1, 31), "x", 2),
    ]


@pytest.mark.parametrize(
    ("rows", "key", "message"),
    [
        (pl.DataFrame({"day": [date(2026, 1, 1)]}), {"day": date(2026, 1, 2)}, "contradicts its key"),
        (pl.DataFrame({"a": [1]}), {"name": "it's"}, "not a key"),
        (pl.DataFrame({"a": [1]}), {"1 = 1 OR name": "x"}, "not a key"),
        (pl.DataFrame({"a": [datetime(2026, 1, 1)]}), {"name": "x"}, "not every reader"),
        (pl.DataFrame({"a": [None]}), {"name": "x"}, "not every reader"),
        (pl.DataFrame({"a": pl.Series(["x"], dtype=pl.Categorical)}), None, "not every reader"),
    ],
)
def test_replace_rows_refuses(lake: Lake, rows: pl.DataFrame, key: Key | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        lake.replace_rows("small", rows, key=key)


def test_replace_rows_refuses_a_changed_type(lake: Lake) -> None:
    lake.replace_rows("metrics", pl.DataFrame({"value": [1]}), key={"name": "x"})
    with pytest.raises(InputError, match=r"column value with another type.*cast it to Int64"):
        lake.replace_rows("metrics", pl.DataFrame({"value": ["text"]}), key={"name": "x"})
    assert pl.read_delta(lake.uri("metrics"))["value"].to_list() == [1]


def test_replace_rows_refuses_another_key(lake: Lake) -> None:
    lake.replace_rows("metrics", pl.DataFrame({"value": [1]}), key={"name": "x"})
    with pytest.raises(InputError, match=r"differs from the table's partition columns.*use the key \['name'\]"):
        lake.replace_rows("metrics", pl.DataFrame({"value": [1]}))


def test_replace_rows_keeps_a_contract(lake: Lake) -> None:
    with pytest.raises(InputError, match="violate the table's contract"):
        lake.replace_rows("channels", pl.DataFrame({"name": ["newsletter"]}))


def test_checked_date_accepts_dates_and_iso_texts() -> None:
    assert checked_date("2026-01-31") == checked_date(date(2026, 1, 31)) == date(2026, 1, 31)
    for wrong in ("2026-02-30", datetime(2026, 1, 31, 4), None, 20_260_131):
        with pytest.raises(InputError, match="not a date"):
            checked_date(wrong)
