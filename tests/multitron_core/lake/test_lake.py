"""`Lake`: partitions are atomic and repeatable, failed writes change nothing, reads return what was written."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from multitron_core.errors import InputError, UnavailableError
from multitron_core.lake.lake import Lake, PartitionCommit
from multitron_core.sessions.vocabulary import Vocabulary

NIGHT = date(2026, 1, 31)
K = 3


def lists(sessions: int, *, first: int = 0, shift: int = 0) -> pl.DataFrame:
    """`sessions` lists of K items; `shift` changes the items."""
    rows = [
        (f"s{first + session:06d}", rank, 10 * rank + shift, 1.0 / rank)
        for session in range(sessions)
        for rank in range(1, K + 1)
    ]
    schema = {"session_id": pl.String, "rank": pl.Int16, "item_id": pl.Int64, "score": pl.Float32}
    return pl.DataFrame(rows, schema=schema, orient="row")


def current(
    lake: Lake, pi: str, run_date: date | str = "latest", session_ids: Iterable[Any] | None = None
) -> pl.DataFrame:
    """The current rows, published or not."""
    return lake.read_recommendations(pi, run_date, session_ids=session_ids, unpublished=True)


def replace(
    lake: Lake, batches: Iterable[pl.DataFrame], *, night: date = NIGHT, pi: str = "0.50", **options: Any
) -> PartitionCommit:
    """Replace a partition of model version 7."""
    return lake.replace_partition(night, pi, batches, **{"model_version": "7", "k": K, **options})


def test_replace_partition_writes_all_columns(lake: Lake) -> None:
    commit = replace(lake, [lists(4), lists(4, first=4)])
    read = current(lake, "0.50")
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


def test_replace_partition_is_repeatable(lake: Lake) -> None:
    for version in (1, 2, 3):
        assert replace(lake, iter([lists(5)])).delta_version == version
    assert current(lake, "0.50").select(lists(1).columns).equals(lists(5))
    assert lake.partitions()["rows"].to_list() == [15]


def test_replace_partition_leaves_other_partitions(lake: Lake) -> None:
    replace(lake, [lists(5)], pi="0.00")
    replace(lake, [lists(5)], night=date(2026, 1, 30))
    replace(lake, [lists(5)])
    replace(lake, [lists(2, shift=1)])
    assert lake.partitions().select("run_date", "pi", "rows").rows() == [
        (NIGHT, "0.00", 15),
        (NIGHT, "0.50", 6),
        (date(2026, 1, 30), "0.50", 15),
    ]
    assert current(lake, "0.50", date(2026, 1, 30)).select(lists(1).columns).equals(lists(5))


def test_replace_partition_sorts_rows_in_files(lake: Lake) -> None:
    batches = [lists(500, first=500 * n) for n in range(40)]  # enough for delta-rs to process several at the same time
    replace(lake, batches)
    for file in lake.open("recommendations").file_uris():
        stored = pl.read_parquet(file, columns=["session_id", "rank"], hive_partitioning=False)
        assert stored.equals(stored.sort("session_id", "rank"))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system cannot restrict a thread to a CPU")
def test_replace_partition_plans_for_one_cpu(lake: Lake) -> None:
    caller, before = threading.get_native_id(), os.sched_getaffinity(0)
    during: list[tuple[int, int]] = []

    def watched() -> Iterator[pl.DataFrame]:
        for n in range(3):
            yield lists(5, first=5 * n)
            during.append((threading.get_native_id(), len(os.sched_getaffinity(caller))))

    replace(lake, watched())
    assert len(during) == 3
    assert all(thread != caller and cpus == 1 for thread, cpus in during), during
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("good_batches", [0, 1, 30])
def test_replace_partition_refuses_a_wrong_row(lake: Lake, good_batches: int) -> None:
    replace(lake, [lists(5)])
    before = lake.version("recommendations")
    wrong = lists(2, first=900_000).with_columns(score=pl.lit(float("nan"), pl.Float32))
    with pytest.raises(InputError, match="scores must be finite"):
        replace(lake, [*(lists(50, first=50 * n) for n in range(good_batches)), wrong])
    assert lake.version("recommendations") == before
    assert current(lake, "0.50").select(lists(1).columns).equals(lists(5))


def test_replace_partition_raises_errors_of_the_stream(lake: Lake) -> None:
    replace(lake, [lists(5)])

    def broken() -> Iterator[pl.DataFrame]:
        yield lists(5, shift=1)
        raise UnavailableError("the server has ended", where="grpc://example")

    with pytest.raises(UnavailableError, match="the server has ended"):
        replace(lake, broken())
    assert lake.version("recommendations") == 1
    assert current(lake, "0.50").select(lists(1).columns).equals(lists(5))


def test_replace_partition_refuses_no_rows(lake: Lake) -> None:
    with pytest.raises(InputError, match="no rows"):
        replace(lake, [])
    assert lake.version("recommendations") == 0


def test_replace_partition_checks_items(lake: Lake) -> None:
    replace(lake, [lists(2)], items=Vocabulary(pl.Series([10, 20, 30])))
    with pytest.raises(InputError, match="not in the vocabulary"):
        replace(lake, [lists(2)], items=Vocabulary(pl.Series([10, 20])))


def test_replace_partition_describes_its_commit(lake: Lake) -> None:
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
    ("arguments", "message"),
    [
        ({"pi": "0.5"}, "not a pi key"),
        ({"pi": "0.50' OR '1' = '1"}, "not a pi key"),
        ({"night": "2026-02-30"}, "not a date"),
        ({"night": datetime(2026, 1, 31, 4)}, "not a date"),
        ({"model_version": ""}, "model version"),
        ({"model_version": 7}, "model version"),
        ({"table": "../elsewhere"}, "not a table name"),
        ({"table": "missing"}, "no such table"),
        ({"table": "published"}, "not a table of ranked lists"),
    ],
)
def test_replace_partition_refuses_arguments(lake: Lake, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(lake, [lists(1)], **arguments)
    assert lake.version("recommendations") == 0


def test_replace_partition_of_string_items(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.create(pl.String)
    replace(lake, [lists(2).cast({"item_id": pl.String})], items=["10", "20", "30"])
    assert current(lake, "0.50")["item_id"].to_list() == ["10", "20", "30"] * 2
    with pytest.raises(InputError, match="wrong type"):
        replace(lake, [lists(2)])


def test_read_recommendations_of_the_newest_night(lake: Lake) -> None:
    replace(lake, [lists(1)], night=date(2026, 1, 30))
    replace(lake, [lists(1)], night=NIGHT)
    replace(lake, [lists(1)], night=date(2026, 2, 1), pi="0.00")
    assert current(lake, "0.50")["run_date"].unique().to_list() == [NIGHT]
    assert current(lake, "0.00")["run_date"].unique().to_list() == [date(2026, 2, 1)]
    assert current(lake, "0.50", "2026-01-30")["run_date"].unique().to_list() == [date(2026, 1, 30)]


def test_read_recommendations_lists_what_exists(lake: Lake) -> None:
    with pytest.raises(InputError, match="nights none"):
        current(lake, "0.50")
    replace(lake, [lists(1)])
    with pytest.raises(InputError, match="2026-01-31"):
        current(lake, "0.50", date(2025, 1, 1))
    with pytest.raises(InputError, match=r"preferences are 0\.50"):
        current(lake, "0.25")


def test_read_recommendations_refuses_unpublished_nights(lake: Lake) -> None:
    replace(lake, [lists(1)])
    for night in ("latest", NIGHT):
        with pytest.raises(InputError, match=r"not published.*published for pi 0\.50: none.*unpublished=True"):
            lake.read_recommendations("0.50", night)
    with pytest.raises(InputError, match="no such table"):
        lake.read_recommendations("0.50", table="nothing")


@pytest.mark.parametrize("change", ["longer", "shorter"])
def test_read_recommendations_detects_changed_files(lake: Lake, change: str) -> None:
    replace(lake, [lists(400)])
    (file,) = lake.open("recommendations").file_uris()
    if change == "longer":
        lists(9_000).write_parquet(file)
    else:
        Path(file).write_bytes(Path(file).read_bytes()[:500])
    with pytest.raises(
        InputError, match=r"changed from outside.*recommendations, 2026-01-31, pi 0\.50.*score this night"
    ):
        current(lake, "0.50")


def test_read_recommendations_of_some_sessions(lake: Lake) -> None:
    replace(lake, [lists(9)])
    read = current(lake, "0.50", session_ids=["s000007", "s000002", "unknown"])
    assert read["session_id"].unique(maintain_order=True).to_list() == ["s000002", "s000007"]
    assert current(lake, "0.50", session_ids=[]).is_empty()
    with pytest.raises(InputError, match="another type"):
        current(lake, "0.50", session_ids=[7])


def test_read_recommendations_reads_one_row_group(lake: Lake) -> None:
    """With all other row groups destroyed, the session can still be read, sessions of other groups cannot."""
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
    assert current(lake, "0.50", session_ids=[inside])["rank"].to_list() == [1, 2, 3]
    with pytest.raises(Exception, match=r"(?i)parquet|decompress|page|thrift"):
        current(lake, "0.50", session_ids=["s000001"])


def test_read_recommendations_needs_pi_or_channel(lake: Lake) -> None:
    with pytest.raises(InputError, match="either a preference or a channel"):
        lake.read_recommendations()
    with pytest.raises(InputError, match="either a preference or a channel"):
        lake.read_recommendations("0.50", channel="newsletter")
