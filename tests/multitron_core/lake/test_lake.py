"""The lake: partitions are whole and repeatable, wrong streams leave no trace, what is read is what was written."""

from __future__ import annotations

import os
import pathlib
import threading
from datetime import date, datetime

import duckdb
import polars as pl
import pytest

from multitron_core.errors import InputError, UnavailableError
from multitron_core.lake.lake import Lake
from multitron_core.sessions.vocabulary import Vocabulary

NIGHT = date(2026, 1, 31)
K = 3


def lists(sessions: int, *, first: int = 0, shift: int = 0) -> pl.DataFrame:
    """`sessions` lists of K items; `shift` makes other items of them."""
    rows = [
        (f"s{first + session:06d}", rank, 10 * rank + shift, 1.0 / rank)
        for session in range(sessions)
        for rank in range(1, K + 1)
    ]
    schema = {"session_id": pl.String, "rank": pl.Int16, "item_id": pl.Int64, "score": pl.Float32}
    return pl.DataFrame(rows, schema=schema, orient="row")


def standing(lake: Lake, *arguments, **options) -> pl.DataFrame:
    """The rows that stand, published or not."""
    return lake.read_recommendations(*arguments, unpublished=True, **options)


@pytest.fixture
def lake(tmp_path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.create(pl.Int64)
    return lake


def replace(lake: Lake, batches, *, night=NIGHT, pi="0.50", **options):
    return lake.replace_partition(night, pi, batches, **{"model_version": "7", "k": K, **options})


def test_what_is_written_is_read_back_with_every_column(lake):
    commit = replace(lake, [lists(4), lists(4, first=4)])
    read = standing(lake, "0.50")
    written = pl.concat([lists(4), lists(4, first=4)])
    assert read.select(written.columns).equals(written)
    assert read.drop(written.columns).unique().to_dicts() == [
        {"pi": "0.50", "pi_click": 0.5, "pi_order": 0.5, "model_version": "7", "run_date": NIGHT}
    ]
    assert read.schema == {
        "session_id": pl.String,
        "rank": pl.Int16,
        "item_id": pl.Int64,
        "score": pl.Float32,
        "pi": pl.String,
        "pi_click": pl.Float64,
        "pi_order": pl.Float64,
        "model_version": pl.String,
        "run_date": pl.Date,
    }
    assert (commit.rows, commit.sessions, commit.delta_version, commit.files) == (24, 8, 1, 1)
    assert commit.bytes > 0
    assert commit.seconds > 0


def test_repeating_a_partition_gives_the_same_rows_and_no_duplicate(lake):
    for version in (1, 2, 3):
        assert replace(lake, iter([lists(5)])).delta_version == version
    assert standing(lake, "0.50").select(lists(1).columns).equals(lists(5))
    assert lake.partitions()["rows"].to_list() == [15]


def test_a_replacement_touches_its_own_partition_only(lake):
    replace(lake, [lists(5)], pi="0.00")
    replace(lake, [lists(5)], night=date(2026, 1, 30))
    replace(lake, [lists(5)])
    replace(lake, [lists(2, shift=1)])
    assert lake.partitions().select("run_date", "pi", "rows").rows() == [
        (NIGHT, "0.00", 15),
        (NIGHT, "0.50", 6),
        (date(2026, 1, 30), "0.50", 15),
    ]
    assert standing(lake, "0.50", date(2026, 1, 30)).select(lists(1).columns).equals(lists(5))


def test_rows_lie_sorted_in_the_files(lake):
    batches = [lists(500, first=500 * n) for n in range(40)]  # enough for delta-rs to work on several at once
    replace(lake, batches)
    for file in lake.open("recommendations").file_uris():
        stored = pl.read_parquet(file, columns=["session_id", "rank"], hive_partitioning=False)
        assert stored.equals(stored.sort("session_id", "rank"))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be kept on a CPU here")
def test_a_write_is_planned_for_one_cpu_until_it_ends(lake):
    caller, before = threading.get_native_id(), os.sched_getaffinity(0)
    during = []

    def watched():
        for n in range(3):
            yield lists(5, first=5 * n)
            during.append((threading.get_native_id(), len(os.sched_getaffinity(caller))))

    replace(lake, watched())
    assert len(during) == 3
    assert all(thread != caller and cpus == 1 for thread, cpus in during), during
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("good_batches", [0, 1, 30])
def test_a_wrong_row_leaves_the_partition_as_it_was(lake, good_batches):
    replace(lake, [lists(5)])
    before = lake.version("recommendations")
    wrong = lists(2, first=900_000).with_columns(score=pl.lit(float("nan"), pl.Float32))
    with pytest.raises(InputError, match="scores must be finite"):
        replace(lake, [*(lists(50, first=50 * n) for n in range(good_batches)), wrong])
    assert lake.version("recommendations") == before
    assert standing(lake, "0.50").select(lists(1).columns).equals(lists(5))


def test_an_exception_of_the_stream_reaches_the_caller_as_it_was_raised(lake):
    replace(lake, [lists(5)])

    def broken():
        yield lists(5, shift=1)
        raise UnavailableError("the server went away", where="grpc://example")

    with pytest.raises(UnavailableError, match="the server went away"):
        replace(lake, broken())
    assert lake.version("recommendations") == 1
    assert standing(lake, "0.50").select(lists(1).columns).equals(lists(5))


def test_no_rows_are_no_partition(lake):
    with pytest.raises(InputError, match="no rows"):
        replace(lake, [])
    assert lake.version("recommendations") == 0


def test_items_are_checked_against_the_vocabulary(lake):
    replace(lake, [lists(2)], items=Vocabulary(pl.Series([10, 20, 30])))
    with pytest.raises(InputError, match="not in the vocabulary"):
        replace(lake, [lists(2)], items=Vocabulary(pl.Series([10, 20])))


def test_the_commit_tells_what_it_is(lake):
    replace(lake, [lists(2)])
    info = lake.open("recommendations").history(1)[0]
    assert {name: info[name] for name in ("run_date", "pi", "model_version", "k")} == {
        "run_date": "2026-01-31",
        "pi": "0.50",
        "model_version": "7",
        "k": K,
    }
    assert info["operationMetrics"]["num_added_rows"] == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"pi": "0.5"}, "not a pi key"),
        ({"pi": "0.50' OR '1' = '1"}, "not a pi key"),
        ({"night": "2026-02-30"}, "not a date"),
        ({"night": datetime(2026, 1, 31, 4)}, "not a date"),
        ({"model_version": ""}, "model version"),
        ({"model_version": 7}, "model version"),
        ({"table": "../elsewhere"}, "not a table name"),
        ({"table": "missing"}, "no such table"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(lake, arguments, said):
    with pytest.raises(InputError, match=said):
        replace(lake, [lists(1)], **arguments)
    assert lake.version("recommendations") == 0


def test_creating_twice_changes_nothing_and_another_item_type_is_refused(lake):
    replace(lake, [lists(2)])
    lake.create(pl.Int64)
    assert lake.version("recommendations") == 1
    with pytest.raises(InputError, match="another contract"):
        lake.create(pl.String)


def test_text_items(tmp_path):
    lake = Lake(str(tmp_path))
    lake.create(pl.String)
    replace(lake, [lists(2).cast({"item_id": pl.String})], items=["10", "20", "30"])
    assert standing(lake, "0.50")["item_id"].to_list() == ["10", "20", "30"] * 2
    with pytest.raises(InputError, match="wrong type"):
        replace(lake, [lists(2)])


def test_the_newest_night_of_a_preference_where_the_unpublished_is_read(lake):
    replace(lake, [lists(1)], night=date(2026, 1, 30))
    replace(lake, [lists(1)], night=NIGHT)
    replace(lake, [lists(1)], night=date(2026, 2, 1), pi="0.00")
    assert standing(lake, "0.50")["run_date"].unique().to_list() == [NIGHT]
    assert standing(lake, "0.00")["run_date"].unique().to_list() == [date(2026, 2, 1)]
    assert standing(lake, "0.50", "2026-01-30")["run_date"].unique().to_list() == [date(2026, 1, 30)]


def test_reading_what_is_not_there_names_what_is(lake):
    with pytest.raises(InputError, match="nights none"):
        standing(lake, "0.50")
    replace(lake, [lists(1)])
    with pytest.raises(InputError, match="2026-01-31"):
        standing(lake, "0.50", date(2025, 1, 1))
    with pytest.raises(InputError, match=r"preferences are 0\.50"):
        standing(lake, "0.25")


def test_what_is_not_published_is_not_read(lake):
    replace(lake, [lists(1)])
    for night in ("latest", NIGHT):
        with pytest.raises(InputError, match=r"not published.*published for pi 0\.50: none.*unpublished=True"):
            lake.read_recommendations("0.50", night)
    with pytest.raises(InputError, match="no such table"):
        lake.read_recommendations("0.50", table="nothing")


@pytest.mark.parametrize("change", ["longer", "shorter"])
def test_a_file_that_was_changed_behind_the_log_is_an_error_with_a_way_out(lake, change):
    replace(lake, [lists(400)])
    (file,) = lake.open("recommendations").file_uris()
    if change == "longer":
        lists(9_000).write_parquet(file)
    else:
        pathlib.Path(file).write_bytes(pathlib.Path(file).read_bytes()[:500])
    with pytest.raises(
        InputError, match=r"changed from outside.*recommendations, 2026-01-31, pi 0\.50.*score this night"
    ):
        standing(lake, "0.50")


def test_reading_some_sessions(lake):
    replace(lake, [lists(9)])
    read = standing(lake, "0.50", session_ids=["s000007", "s000002", "unknown"])
    assert read["session_id"].unique(maintain_order=True).to_list() == ["s000002", "s000007"]
    assert standing(lake, "0.50", session_ids=[]).is_empty()
    with pytest.raises(InputError, match="another type"):
        standing(lake, "0.50", session_ids=[7])


def test_a_point_read_touches_one_row_group(lake):
    """Every other row group of the file is destroyed; the session is read all the same, its neighbours are not."""
    replace(lake, [lists(30_000, first=30_000 * n) for n in range(5)])
    (file,) = lake.open("recommendations").file_uris()
    groups = duckdb.execute(
        "SELECT row_group_id, min(stats_min_value) FILTER (path_in_schema = 'session_id'), "
        "min(least(data_page_offset, coalesce(dictionary_page_offset, data_page_offset))), "
        "sum(total_compressed_size)::BIGINT FROM parquet_metadata(?) GROUP BY row_group_id ORDER BY row_group_id",
        [file],
    ).fetchall()
    assert len(groups) == 4
    with open(file, "r+b") as stored:
        for number, _, start, size in groups:
            if number != 2:
                stored.seek(start)
                stored.write(bytes(size))
    inside = f"s{int(groups[2][1][1:]) + 1000:06d}"
    assert standing(lake, "0.50", session_ids=[inside])["rank"].to_list() == [1, 2, 3]
    with pytest.raises(Exception, match=r"(?i)parquet|decompress|page|thrift"):
        standing(lake, "0.50", session_ids=["s000001"])


def test_partitions_of_an_empty_table(lake):
    assert lake.partitions().is_empty()
    assert lake.partitions().columns == ["run_date", "pi", "rows", "files", "bytes", "model_version"]


def test_small_tables_are_replaced_by_key(lake):
    one = pl.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.4]})
    assert lake.replace_rows("metrics", one, key={"model_version": "7"}).rows == 2
    lake.replace_rows("metrics", one.lazy().with_columns(seconds=1.5), key={"model_version": "8"})
    lake.replace_rows("metrics", one.head(1), key={"model_version": "7"})
    read = pl.read_delta(lake.uri("metrics")).sort("model_version", "epoch")
    assert read.select("model_version", "epoch", "seconds").rows() == [("7", 1, None), ("8", 1, 1.5), ("8", 2, 1.5)]


def test_a_table_without_key_is_replaced_whole(lake):
    lake.replace_rows("front", pl.DataFrame({"pi": ["0.00", "1.00"], "rank": pl.Series([1, 2], dtype=pl.UInt32)}))
    lake.replace_rows("front", pl.DataFrame({"point": [1]}))
    assert pl.read_delta(lake.uri("front")).rows(named=True) == [{"point": 1}]


@pytest.mark.parametrize(
    ("rows", "key", "said"),
    [
        ({"day": [date(2026, 1, 1)]}, {"day": date(2026, 1, 2)}, "contradicts its key"),
        ({"a": [1]}, {"name": "it's"}, "not a key"),
        ({"a": [1]}, {"1 = 1 OR name": "x"}, "not a key"),
        ({"a": [datetime(2026, 1, 1)]}, {"name": "x"}, "every reader"),
        ({"a": [None]}, {"name": "x"}, "every reader"),
        ({"a": pl.Series(["x"], dtype=pl.Categorical)}, None, "every reader"),
    ],
)
def test_small_tables_refuse(lake, rows, key, said):
    with pytest.raises(InputError, match=said):
        lake.replace_rows("small", pl.DataFrame(rows), key=key)


def test_a_column_that_changes_its_type_is_refused(lake):
    lake.replace_rows("metrics", pl.DataFrame({"value": [1]}), key={"name": "x"})
    with pytest.raises(InputError, match="value"):
        lake.replace_rows("metrics", pl.DataFrame({"value": ["text"]}), key={"name": "x"})
    assert pl.read_delta(lake.uri("metrics"))["value"].to_list() == [1]


def test_a_table_keeps_its_key(lake):
    lake.replace_rows("metrics", pl.DataFrame({"value": [1]}), key={"name": "x"})
    with pytest.raises(InputError, match="key is not the table's"):
        lake.replace_rows("metrics", pl.DataFrame({"value": [1]}))
