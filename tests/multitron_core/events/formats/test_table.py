"""The table format: mappings, file kinds, types, users without sessions."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

import polars as pl
import pytest
from deltalake import write_deltalake

from multitron_core.errors import InputError
from multitron_core.events.formats.table import ColumnMapping
from multitron_core.events.read import EventLog, read_events

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SHOP = ColumnMapping(
    session_id="visit",
    item_id="sku",
    ts="at",
    event_type="what",
    event_types={"view": "click", "basket": "cart", "buy": "order", "search": None},
)


def shop_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "noise": [1.5, 2.5, 3.5, 4.5, 5.5],
            "visit": ["v1", "v1", "v2", "", "v3"],
            "sku": ["shoe", "hat", "shoe", "hat", "hat"],
            "at": [NOON + timedelta(minutes=minute) for minute in range(5)],
            "what": ["view", "buy", "basket", "view", "search"],
        }
    )


def collect(log: EventLog) -> tuple[pl.DataFrame, pl.DataFrame]:
    events, rejects = pl.collect_all([log.events, log.rejects])
    return events.sort("line"), rejects.sort("line")


def write(frame: pl.DataFrame, folder: Path, kind: str) -> Path:
    path = folder / f"events.{kind}"
    if kind == "parquet":
        frame.write_parquet(path)
    elif kind == "csv":
        frame.write_csv(path, datetime_format="%Y-%m-%dT%H:%M:%S%.fZ")
    elif kind == "ndjson":
        frame.with_columns(pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_ndjson(path)
    else:
        write_deltalake(path, frame)
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson", "lake"])
def test_read_events_of_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    path = write(shop_frame(), tmp_path, kind)
    events, rejects = collect(read_events(path, "table", columns=SHOP))
    first = 2 if kind == "csv" else 1  # the header is line 1
    assert events.drop("file").rows() == [
        ("v1", "shoe", NOON, "click", first),
        ("v1", "hat", NOON + timedelta(minutes=1), "order", first + 1),
        ("v2", "shoe", NOON + timedelta(minutes=2), "cart", first + 2),
    ]
    assert rejects.select("line", "reason").rows() == [
        (first + 3, "session or user id is missing"),
        (first + 4, "event type not used"),
    ]
    assert "hat" in rejects["text"][0]
    assert events["file"].unique().to_list() == ["events.lake.delta" if kind == "lake" else f"events.{kind}"]


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([1_767_268_800], "s"),
        ([1_767_268_800_000], "ms"),
        ([1_767_268_800_000_000], "us"),
        ([1_767_268_800.0], "s"),
        (["2026-01-01T12:00:00Z"], None),
        (["2026-01-01 12:00:00"], None),
        (["2026-01-01T14:00:00.000+02:00"], None),
        (["2026-01-01T07:30:00-0430"], None),
        ([NOON], None),
        ([NOON.replace(tzinfo=None)], None),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_read_events_parses_times(
    values: list[object], unit: Literal["s", "ms", "us"] | None, kind: str, tmp_path: Path
) -> None:
    frame = pl.DataFrame({"session_id": ["a"], "item_id": [1], "ts": values})
    path = tmp_path / f"events.{kind}"
    frame.write_parquet(path) if kind == "parquet" else frame.write_csv(path)
    columns = ColumnMapping(event_type=None, time_unit=unit)
    events, rejects = collect(read_events(path, "table", columns=columns))
    assert rejects.rows() == []
    assert events["ts"].to_list() == [NOON]
    assert events["event_type"].to_list() == ["click"]


def test_read_events_rejects_invalid_times(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "session_id": "a",
            "item_id": 1,
            "ts": ["2026-13-01T00:00:00Z", "12:00", "1971-01-01T00:00:00Z", None, "1e300"],
        }
    )
    _, rejects = read_from(frame, ColumnMapping(event_type=None), tmp_path)
    assert rejects["reason"].to_list() == [
        "time cannot be read", "time cannot be read", "time out of range", "time cannot be read", "time cannot be read",
    ]  # fmt: skip
    for number in (1e300, -1.0, float("nan")):
        events, rejects = read_from(
            pl.DataFrame({"session_id": "a", "item_id": 1, "ts": [number]}),
            ColumnMapping(event_type=None, time_unit="s"),
            tmp_path,
        )
        assert (len(events), len(rejects)) == (0, 1)


def read_from(frame: pl.DataFrame, columns: ColumnMapping, folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events and rejects of a frame that is written as a parquet file."""
    path = folder / "events.parquet"
    frame.write_parquet(path)
    return collect(read_events(path, "table", columns=columns))


@pytest.mark.parametrize(
    ("items", "item_type", "expected"),
    [
        (["1", "-2", "30"], "auto", [1, -2, 30]),
        (["1", "x", "30"], "auto", ["1", "x", "30"]),
        (["001", "2", "3"], "auto", ["001", "2", "3"]),  # leading zeros are part of an id
        (["1", "2", "3"], "string", ["1", "2", "3"]),
        (["1", "x", "3"], "integer", [1, 3]),
    ],
)
def test_read_events_chooses_type_of_item_ids(
    items: list[str], item_type: Literal["auto", "integer", "string"], expected: list[object], tmp_path: Path
) -> None:
    lines = "".join(f"s,{item},2026-01-01T12:00:00Z,click\n" for item in items)
    (tmp_path / "events.csv").write_text("session_id,item_id,ts,event_type\n" + lines)
    columns = ColumnMapping(item_type=item_type)
    events, rejects = collect(read_events(tmp_path, "table", columns=columns))
    assert events["item_id"].to_list() == expected
    assert len(events) + len(rejects) == 3


def test_read_events_widens_types_of_item_ids(tmp_path: Path) -> None:
    frame = pl.DataFrame({"session_id": [7], "item_id": [3], "ts": [NOON], "event_type": ["order"]})
    for item_type, expected in ((pl.UInt16, pl.Int64), (pl.String, pl.String), (pl.Categorical, pl.String)):
        item = (
            pl.col("item_id").cast(pl.String).cast(item_type)
            if item_type == pl.Categorical
            else pl.col("item_id").cast(item_type)
        )
        events, _ = read_from(frame.with_columns(item), ColumnMapping(), tmp_path)
        assert events.schema["item_id"] == expected
        assert events["session_id"].to_list() == ["7"]


def test_read_events_of_quoted_and_reordered_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('ts;"event_type";item_id;x;session_id\n2026-01-01T12:00:00Z;click;"a;""b""";;s\n')
    (tmp_path / "b.tsv").write_text("session_id;ts;item_id;event_type\r\ns;2026-01-01T12:00:00Z;c;click\r\n")
    (tmp_path / "notes.txt").write_text("not events")
    events, rejects = collect(read_events(tmp_path, "table", columns=ColumnMapping(separator=";")))
    assert rejects.rows() == []
    assert events.select("file", "item_id").rows() == [("a.csv", 'a;"b"'), ("b.tsv", "c")]


def test_read_events_splits_users_into_sessions(tmp_path: Path) -> None:
    minutes = [0, 29, 59, 90, 91]
    frame = pl.DataFrame(
        {
            "user": ["u"] * 5 + ["v"],
            "item_id": [1, 2, 3, 4, 5, 1],
            "ts": [NOON + timedelta(minutes=minute) for minute in minutes] + [NOON],
        }
    ).sample(fraction=1.0, shuffle=True, seed=1)
    columns = ColumnMapping(user_id="user", event_type=None)
    events, _ = read_from(frame, columns, tmp_path)
    sessions = dict(events.group_by("session_id").agg(pl.col("item_id").sort()).iter_rows())
    assert sessions == {
        "u@2026-01-01T12:00:00.000000Z": [1, 2, 3],
        "u@2026-01-01T13:30:00.000000Z": [4, 5],
        "v@2026-01-01T12:00:00.000000Z": [1],
    }


def test_read_events_names_missing_columns(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"lacks columns: event_type, item_id, session_id, ts.*events.csv"):
        read_events(path, "table")
    path.write_text("")
    with pytest.raises(InputError, match="no header"):
        read_events(path, "table")


def test_column_mapping_refuses_unknown_values() -> None:
    with pytest.raises(InputError, match="unknown event types"):
        ColumnMapping(event_types={"view": "look"})
    with pytest.raises(InputError, match="time unit"):
        ColumnMapping(time_unit="h")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="item type"):
        ColumnMapping(item_type="float")  # type: ignore[arg-type]


def test_read_events_refuses_columns_of_wrong_type(tmp_path: Path) -> None:
    frame = pl.DataFrame({"session_id": ["a"], "item_id": [1.5], "ts": [NOON], "event_type": ["click"]})
    with pytest.raises(InputError, match="neither integers nor text"):
        read_from(frame, ColumnMapping(), tmp_path)
    with pytest.raises(InputError, match="time_unit"):
        read_from(frame.with_columns(item_id=1, ts=5), ColumnMapping(), tmp_path)


def test_read_events_takes_dates_as_midnight(tmp_path: Path) -> None:
    frame = pl.DataFrame({"session_id": ["a"], "item_id": [1], "ts": [date(2026, 1, 1)], "event_type": ["click"]})
    events, _ = read_from(frame, ColumnMapping(), tmp_path)
    assert events["ts"].to_list() == [datetime(2026, 1, 1, tzinfo=UTC)]


def test_column_mapping_from_settings() -> None:
    mapping = ColumnMapping.from_settings({"user_id": "customer", "session_gap": 45, "event_types": {"pv": "click"}})
    assert mapping == ColumnMapping(user_id="customer", session_gap=timedelta(minutes=45), event_types={"pv": "click"})
