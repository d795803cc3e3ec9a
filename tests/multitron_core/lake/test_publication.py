"""Publishing: readers see what was released, exactly as it was released, until something newer is."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.lake.lake import Lake

MONDAY, TUESDAY = date(2026, 1, 5), date(2026, 1, 6)


def lists(score: float, sessions: int = 3) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "session_id": [f"s{row // 2}" for row in range(2 * sessions)],
            "rank": [row % 2 + 1 for row in range(2 * sessions)],
            "item_id": [row % 2 + 1 for row in range(2 * sessions)],
            "score": [score] * (2 * sessions),
        }
    )


@pytest.fixture
def lake(tmp_path) -> Lake:
    lake = Lake(tmp_path)
    lake.create(pl.Int64)
    return lake


def write(lake: Lake, night: date, score: float, pi: str = "0.50", **options):
    return lake.replace_partition(night, pi, [lists(score)], model_version=f"v{score:.0f}", k=2, **options)


def scores(frame: pl.DataFrame) -> list[float]:
    return frame["score"].unique().to_list()


def test_a_publication_says_what_was_released(lake):
    commit = write(lake, MONDAY, 1.0)
    before = datetime.now(UTC)
    publication = lake.publish(MONDAY, "0.50", delta_version=commit.delta_version)
    assert (publication.table_name, publication.run_date, publication.pi) == ("recommendations", MONDAY, "0.50")
    assert (publication.model_version, publication.delta_version) == ("v1", commit.delta_version)
    assert (publication.rows, publication.lists) == (6, 3)
    assert len(publication.checksum) == 64
    assert before <= publication.published_at <= before + timedelta(minutes=1)
    assert lake.publications().rows(named=True) == [vars(publication)]


def test_before_anything_is_published_nobody_sees_anything(lake):
    write(lake, MONDAY, 1.0)
    with pytest.raises(InputError, match=r"published for pi 0\.50: none"):
        lake.read_recommendations("0.50")
    assert scores(lake.read_recommendations("0.50", unpublished=True)) == [1.0]


def test_latest_is_the_latest_published(lake):
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


def test_each_preference_is_published_by_itself(lake):
    for pi in ("0.00", "1.00"):
        write(lake, MONDAY, 1.0, pi)
    lake.publish(MONDAY, "0.00")
    assert scores(lake.read_recommendations("0.00")) == [1.0]
    with pytest.raises(InputError, match=r"published preferences: 0\.00"):
        lake.read_recommendations("1.00")


def test_a_partition_written_again_stays_unseen_until_it_is_published_again(lake):
    write(lake, MONDAY, 1.0)
    lake.publish(MONDAY, "0.50")
    write(lake, MONDAY, 2.0)
    assert scores(lake.read_recommendations("0.50")) == [1.0]
    assert scores(lake.read_recommendations("0.50", session_ids=["s1"])) == [1.0]
    lake.publish(MONDAY, "0.50")
    assert scores(lake.read_recommendations("0.50")) == [2.0]
    assert len(lake.publications()) == 1


def test_what_was_checked_is_published_even_when_newer_rows_stand(lake):
    checked = write(lake, MONDAY, 1.0)
    write(lake, MONDAY, 2.0)
    lake.publish(MONDAY, "0.50", delta_version=checked.delta_version)
    assert scores(lake.read_recommendations("0.50")) == [1.0]


def test_a_reader_that_pins_the_version_reads_the_same_thing_twice(lake):
    write(lake, MONDAY, 1.0)
    version = lake.publish(MONDAY, "0.50").delta_version
    first = pl.read_delta(lake.uri("recommendations"), version=version).sort("session_id", "rank")
    write(lake, MONDAY, 2.0)
    write(lake, TUESDAY, 2.0)
    assert pl.read_delta(lake.uri("recommendations"), version=version).sort("session_id", "rank").equals(first)


def test_published_rows_that_are_gone_are_not_replaced_by_others(lake):
    write(lake, MONDAY, 1.0)
    lake.publish(MONDAY, "0.50")
    write(lake, MONDAY, 2.0)
    lake.open("recommendations").vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises((InputError, OSError)):
        lake.read_recommendations("0.50")


def test_nothing_is_published_that_is_not_there(lake):
    write(lake, MONDAY, 1.0)
    with pytest.raises(InputError, match="nothing to publish"):
        lake.publish(TUESDAY, "0.50")
    with pytest.raises(InputError, match="nothing to publish"):
        lake.publish(MONDAY, "0.50", delta_version=0)
    with pytest.raises(InputError, match="version cannot be read"):
        lake.publish(MONDAY, "0.50", delta_version=99)


def test_items_and_fallbacks_are_published_by_the_same_rules(lake):
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
    beside = lake.read_recommendations("0.50", table="item_recommendations", session_ids=[5])
    assert beside["for_item_id"].to_list() == [5, 5]
    assert lake.read_recommendations("0.50", table="fallback_recommendations")["audience"].to_list() == ["all"] * 2


def test_a_night_is_released_in_one_commit_or_not_at_all(lake):
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
    lake.publish(MONDAY, "0.50")  # one table again, the other stays
    assert lake.publications()["table_name"].to_list() == sorted(night)
