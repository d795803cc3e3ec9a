"""Shards: complete sessions in their order, in memory or through files that are removed."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.events.formats.format import TIME
from multitron_core.sessions.event_shards import LINE_BITS, EventShards

START = datetime(2026, 1, 1, tzinfo=UTC)


def log_of(rows: int, seed: int = 0) -> pl.DataFrame:
    dice = random.Random(seed)
    return pl.DataFrame(
        {
            "session_id": [f"session-{dice.randrange(rows // 4)}" for _ in range(rows)],
            "item_id": [dice.randrange(9) for _ in range(rows)],
            "ts": [START + timedelta(seconds=dice.randrange(9999)) for _ in range(rows)],
            "event_type": [dice.choice(["click", "cart", "order"]) for _ in range(rows)],
            "file": [dice.choice(["b", "a", "c"]) for _ in range(rows)],
            "line": list(range(rows)),
        },
        schema_overrides={"ts": TIME},
    )


@pytest.mark.parametrize("rows_in_memory", [1, 100, 700, 10_000])
def test_event_shards_keep_sessions_complete_and_in_order(rows_in_memory: int) -> None:
    log = log_of(2000)
    with EventShards(rows_in_memory=rows_in_memory) as shards:
        shards.read(log)
        assert sum(shards.counts.values()) == len(log)
        assert shards.counts["cart"] == log.filter(event_type="cart").height
        parts = [shards.load(number) for number in range(len(shards))]
        files = shards.file_names()
    assert files == ["a", "b", "c"]
    assert (len(parts) > 1) == (rows_in_memory < 2000)
    sessions = [set(part["session_id"]) for part in parts]
    assert sum(map(len, sessions)) == log["session_id"].n_unique()
    for (session,), events in pl.concat(parts).partition_by("session_id", as_dict=True).items():
        expected = log.filter(session_id=session)
        assert events["item_id"].to_list() == expected["item_id"].to_list()
        assert events["ts"].to_list() == expected["ts"].to_physical().to_list()
        assert [files[place >> LINE_BITS] for place in events["place"]] == expected["file"].to_list()
        assert [place % (1 << LINE_BITS) for place in events["place"]] == expected["line"].to_list()


def test_event_shards_remove_their_folder() -> None:
    with EventShards(rows_in_memory=10) as shards:
        assert shards.folder is None
        shards.read(log_of(100))
        folder = shards.folder
        assert folder is not None
        assert any(folder.iterdir())
    assert not folder.exists()


def test_event_shards_number_rows_without_lines() -> None:
    with EventShards() as shards:
        shards.read(log_of(50).drop("file", "line"))
        assert len(shards) == 1
        part = shards.load(0)
    assert part["place"].to_list() == list(range(50))


def test_event_shards_split_users_into_sessions() -> None:
    log = pl.DataFrame(
        {"session_id": "u", "item_id": [1, 2, 3], "ts": [START + timedelta(minutes=m) for m in (50, 0, 10)],
         "event_type": "click"},
        schema_overrides={"ts": TIME},
    )  # fmt: skip
    with EventShards(session_gap=timedelta(minutes=30)) as shards:
        shards.read(log)
        assert len(shards) == 1
        part = shards.load(0)
    start = "u@2026-01-01T00:00:00.000000Z"
    later = "u@2026-01-01T00:50:00.000000Z"
    assert part.sort("ts").select("session_id", "item_id").rows() == [(start, 2), (start, 3), (later, 1)]


def test_event_shards_raise_errors_of_the_stream() -> None:
    with EventShards() as shards, pytest.raises(InputError, match=r"unknown event types.*look"):
        shards.read(log_of(50).with_columns(event_type=pl.lit("look")))


def test_event_shards_refuse_invalid_rows_in_memory() -> None:
    with pytest.raises(InputError, match="rows_in_memory"):
        EventShards(rows_in_memory=0)
