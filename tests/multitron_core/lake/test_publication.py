"""Publication: readers see exactly what was published, until something newer is published."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.lake.lake import Lake, PartitionCommit

MONDAY, TUESDAY = date(2026, 1, 5), date(2026, 1, 6)


def lists(score: float, sessions: int = 3) -> pl.DataFrame:
    """Lists of two items with the same score."""
    return pl.DataFrame(
        {
            "session_id": [f"s{row // 2}" for row in range(2 * sessions)],
            "rank": [row % 2 + 1 for row in range(2 * sessions)],
            "item_id": [row % 2 + 1 for row in range(2 * sessions)],
            "score": [score] * (2 * sessions),
        }
    )


def write(lake: Lake, night: date, score: float, pi: str = "0.50") -> PartitionCommit:
    """Write a partition whose model version contains the score."""
    return lake.replace_partition(night, pi, [lists(score)], model_version=f"v{score:.0f}", k=2)


def scores(frame: pl.DataFrame) -> list[float]:
    """Distinct scores."""
    return frame["score"].unique().to_list()


def test_publish_describes_the_partition(lake: Lake) -> None:
    commit = write(lake, MONDAY, 1.0)
    before = datetime.now(UTC)
    publication = lake.publish(MONDAY, "0.50", delta_version=commit.delta_version)
    assert (publication.table_name, publication.run_date, publication.pi) == ("recommendations", MONDAY, "0.50")
    assert (publication.model_version, publication.delta_version) == ("v1", commit.delta_version)
    assert (publication.rows, publication.lists) == (6, 3)
    assert len(publication.checksum) == 64
    assert before <= publication.published_at <= before + timedelta(minutes=1)
    assert lake.publications().rows(named=True) == [vars(publication)]


def test_publish_makes_a_partition_visible(lake: Lake) -> None:
    write(lake, MONDAY, 1.0)
    with pytest.raises(InputError, match=r"published for pi 0\.50: none"):
        lake.read_recommendations("0.50")
    assert scores(lake.read_recommendations("0.50", unpublished=True)) == [1.0]
    lake.publish(MONDAY, "0.50")
    assert scores(lake.read_recommendations("0.50")) == [1.0]


def test_publish_determines_the_latest_night(lake: Lake) -> None:
    write(lake, MONDAY, 1.0)
    lake.publish(MONDAY, "0.50")
    write(lake, TUESDAY, 2.0)
    assert scores(lake.read_recommendations("0.50")) == [1.0]
    assert scores(lake.read_recommendations("0.50", unpublished=True)) == [2.0]
    with pytest.raises(InputError, match=r"published for pi 0\.50: 2026-01-05"):
        lake.read_recommendations("0.50", TUESDAY)
    lake.publish(TUESDAY, "0.50")
    assert scores(lake.read_recommendations("0.50")) == [2.0]
    assert scores(lake.read_recommendations("0.50", MONDAY)) == [1.0]


def test_publish_publishes_one_preference(lake: Lake) -> None:
    for pi in ("0.00", "1.00"):
        write(lake, MONDAY, 1.0, pi)
    lake.publish(MONDAY, "0.00")
    assert scores(lake.read_recommendations("0.00")) == [1.0]
    with pytest.raises(InputError, match=r"published preferences: 0\.00"):
        lake.read_recommendations("1.00")


def test_publish_hides_later_writes(lake: Lake) -> None:
    write(lake, MONDAY, 1.0)
    lake.publish(MONDAY, "0.50")
    write(lake, MONDAY, 2.0)
    assert scores(lake.read_recommendations("0.50")) == [1.0]
    assert scores(lake.read_recommendations("0.50", session_ids=["s1"])) == [1.0]
    lake.publish(MONDAY, "0.50")
    assert scores(lake.read_recommendations("0.50")) == [2.0]
    assert len(lake.publications()) == 1


def test_publish_takes_the_checked_version(lake: Lake) -> None:
    checked = write(lake, MONDAY, 1.0)
    write(lake, MONDAY, 2.0)
    lake.publish(MONDAY, "0.50", delta_version=checked.delta_version)
    assert scores(lake.read_recommendations("0.50")) == [1.0]


def test_publish_names_a_version_with_stable_rows(lake: Lake) -> None:
    write(lake, MONDAY, 1.0)
    version = lake.publish(MONDAY, "0.50").delta_version
    first = pl.read_delta(lake.uri("recommendations"), version=version).sort("session_id", "rank")
    write(lake, MONDAY, 2.0)
    write(lake, TUESDAY, 2.0)
    assert pl.read_delta(lake.uri("recommendations"), version=version).sort("session_id", "rank").equals(first)


def test_published_night_refuses_replaced_rows(lake: Lake) -> None:
    write(lake, MONDAY, 1.0)
    lake.publish(MONDAY, "0.50")
    write(lake, MONDAY, 2.0)
    lake.open("recommendations").vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises((InputError, OSError)):
        lake.read_recommendations("0.50")


def test_publish_refuses_a_missing_partition(lake: Lake) -> None:
    write(lake, MONDAY, 1.0)
    with pytest.raises(InputError, match="nothing to publish"):
        lake.publish(TUESDAY, "0.50")
    with pytest.raises(InputError, match="nothing to publish"):
        lake.publish(MONDAY, "0.50", delta_version=0)
    with pytest.raises(InputError, match="version cannot be read"):
        lake.publish(MONDAY, "0.50", delta_version=99)


def test_publish_of_item_and_fallback_lists(lake: Lake) -> None:
    items = lists(1.0).with_columns(for_item_id=pl.Series([1, 1, 5, 5, 30, 30])).drop("session_id")
    lake.replace_partition(MONDAY, "0.50", [items], model_version="v1", k=2, table="item_recommendations")
    fallback = lists(1.0, sessions=1).rename({"session_id": "audience"}).with_columns(audience=pl.lit("all"))
    lake.replace_partition(MONDAY, "0.50", [fallback], model_version="v1", k=2, table="fallback_recommendations")
    for table in ("item_recommendations", "fallback_recommendations"):
        lake.publish(MONDAY, "0.50", table=table)
    assert lake.publications().select("table_name", "lists").rows() == [
        ("fallback_recommendations", 1),
        ("item_recommendations", 3),
    ]
    of_item = lake.read_recommendations("0.50", table="item_recommendations", session_ids=[5])
    assert of_item["for_item_id"].to_list() == [5, 5]
    assert lake.read_recommendations("0.50", table="fallback_recommendations")["audience"].to_list() == ["all"] * 2


def test_publish_night_is_one_commit_or_none(lake: Lake) -> None:
    write(lake, MONDAY, 1.0)
    night = {"recommendations": None, "fallback_recommendations": None}
    with pytest.raises(InputError, match=r"nothing to publish.*fallback_recommendations"):
        lake.publish_night(MONDAY, "0.50", night)
    assert lake.publications().is_empty()
    frame = pl.DataFrame({"audience": ["all"] * 2, "rank": [1, 2], "item_id": [1, 2], "score": [0.5, 0.4]})
    lake.replace_partition(MONDAY, "0.50", [frame], model_version="7", k=2, table="fallback_recommendations")
    before = lake.version("published")
    for _ in range(2):
        assert [row.table_name for row in lake.publish_night(MONDAY, "0.50", night)] == list(night)
    assert lake.version("published") == before + 2
    assert lake.publications()["table_name"].to_list() == sorted(night)
    lake.publish(MONDAY, "0.50")  # replaces the row of this table only
    assert lake.publications()["table_name"].to_list() == sorted(night)
