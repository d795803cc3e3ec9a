"""The simulator: same bytes for the same arguments, equal events in all formats, agreement with the ground truth."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.events.read import read_events
from multitron_core.simulator.ground_truth import Habits, Truth, make_items
from multitron_core.simulator.simulation import BLOCK, Simulation, draw_events, simulate
from multitron_core.utils.atomic_file import temporary_sibling

SMALL: dict[str, Any] = {"sessions": 600, "items": 200, "days": 3, "seed": 7}
DAY_MS = 86_400_000


def read_table(simulation: Simulation) -> pl.DataFrame:
    """The raw events of a `table` simulation, read without the project's reader."""
    days = []
    for path in simulation.files:
        day = pl.read_csv(gzip.decompress(path.read_bytes()), schema_overrides={"ts": pl.String})
        days.append(day.with_columns(pl.lit(path.name).alias("file")))
    return pl.concat(days).with_columns(pl.col("ts").str.to_datetime("%Y-%m-%dT%H:%M:%S%.3fZ", time_unit="ms"))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return simulate(tmp_path_factory.mktemp("table") / "shop", sessions=6_000, items=500, days=4)


@pytest.mark.parametrize("format", ["table", "diginetica", "yoochoose", "otto"])
def test_simulate_same_arguments_give_same_bytes(tmp_path: Path, format: str) -> None:
    first, second, other = (
        simulate(tmp_path / name, format=format, **SMALL | {"seed": seed})
        for name, seed in (("a", 7), ("b", 7), ("c", 8))
    )
    assert digests(first.folder) == digests(second.folder)
    assert first.counts == second.counts
    assert all(digests(first.folder)[path.name] != digests(other.folder)[path.name] for path in first.files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]  # no temporary folder is left


def test_simulate_day_of_several_blocks(tmp_path: Path) -> None:
    habits = Habits(mean_clicks=1.2)
    done = simulate(tmp_path / "shop", sessions=BLOCK + 10, items=50, days=1, habits=habits)
    events = read_table(done)
    assert set(events["session_id"]) == set(range(1, BLOCK + 11))
    assert events["event_type"].value_counts().sort("event_type")["count"].to_list() == [
        done.counts[name] for name in ("carts", "clicks", "orders")
    ]


def test_simulate_keeps_refuses_or_replaces_folder(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    first = simulate(folder, **SMALL)
    written = folder.stat().st_ino
    assert simulate(folder, **SMALL) == first
    assert folder.stat().st_ino == written  # the folder was not written again
    with pytest.raises(InputError, match=r"other arguments.*'seed': 7"):
        simulate(folder, **SMALL | {"seed": 8})
    with pytest.raises(InputError, match=r"other arguments.*habits"):
        simulate(folder, **SMALL, habits=Habits(step=0.2))
    assert simulate(folder, **SMALL) == first
    before = digests(folder)
    simulate(folder, **SMALL | {"seed": 8}, replace=True)
    assert digests(folder) != before
    assert json.loads((folder / "truth" / "parameters.json").read_text())["seed"] == 8


def test_simulate_never_overwrites_other_files(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear shop")
    with pytest.raises(InputError, match="other than a simulation"):
        simulate(tmp_path, **SMALL, replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(InputError, match="other than a simulation"):
        simulate(tmp_path / "letter.txt", **SMALL, replace=True)


def test_simulate_removes_files_of_killed_simulation(tmp_path: Path) -> None:
    clean = simulate(tmp_path / "clean", **SMALL)
    left = temporary_sibling(tmp_path / "shop")
    (left / "truth").mkdir(parents=True)
    (left / "events-2026-01-01.csv.gz").write_bytes(b"half")
    os.utime(left, (0, 0))  # so old that its process counts as killed
    done = simulate(tmp_path / "shop", **SMALL)
    assert digests(done.folder) == digests(clean.folder)
    assert not left.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "excel"}, "unknown format.*excel.*diginetica"),
        ({"sessions": 2}, "sessions.*found: 2.*use 3 or more"),
        ({"days": 0}, "days.*found: 0"),
        ({"days": 1, "format": "otto"}, "days.*found: 1.*use 2 or more"),
        ({"seed": -1}, "seed.*found: -1"),
        ({"items": 5}, "items.*found: 5.*20"),
    ],
)
def test_simulate_refuses_arguments_out_of_range(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(tmp_path / "shop", **SMALL | arguments)
    assert list(tmp_path.iterdir()) == []


def test_simulate_day_files_contain_events_of_their_day(table: Simulation) -> None:
    events = read_table(table)
    assert [path.name for path in table.files] == [f"events-2026-01-0{day}.csv.gz" for day in (1, 2, 3, 4)]
    assert (events["file"] == pl.Series(events["ts"].dt.strftime("events-%Y-%m-%d.csv.gz"))).all()
    days = events.group_by("session_id").agg(pl.col("file").n_unique())
    assert (days["file"] == 2).any()
    assert days["file"].max() == 2
    assert events.group_by("file").agg(pl.col("ts").is_sorted())["ts"].all()
    assert len(days) == table.counts["sessions"] == 6_000


def test_simulate_carts_and_orders_follow_last_click(table: Simulation) -> None:
    events = read_table(table)
    key = ["session_id", "item_id"]
    times = {kind: events.filter(pl.col("event_type") == kind) for kind in ("click", "cart", "order")}
    last = times["click"].group_by(key).agg(pl.col("ts").max().alias("last_click"))
    for kind in ("cart", "order"):
        joined = times[kind].join(last, on=key, how="left")
        assert len(joined) > 100
        assert (joined["ts"] > joined["last_click"]).all()  # also fails on an item that was never clicked
        assert joined.select(key).is_unique().all()


def test_simulate_sessions_have_length_of_habits(table: Simulation) -> None:
    clicks = read_table(table).filter(pl.col("event_type") == "click").group_by("session_id").len()["len"].to_numpy()
    assert 4.7 < clicks.mean() < 5.3
    assert clicks.min() == 1
    assert 25 <= clicks.max() <= 40
    assert 0.02 < table.counts["orders"] / table.counts["clicks"] < 0.06


def test_simulate_writes_equal_events_in_every_format(tmp_path: Path) -> None:
    """One seed in four formats: equal sessions, items, times and orders (`table` ends at the last midnight)."""
    folders = {name: simulate(tmp_path / name, format=name, **SMALL) for name in ("table", "otto", "yoochoose")}
    folders["diginetica"] = simulate(tmp_path / "diginetica", format="diginetica", **SMALL)
    events: dict[str, set[tuple[int, int, int, str]]] = {name: set() for name in folders}
    for session, item, ts, kind, _ in read_table(folders["table"]).iter_rows():
        events["table"].add((session, item, int(ts.replace(tzinfo=UTC).timestamp() * 1000 + 0.5), kind))
    for path in folders["otto"].files:
        for line in path.read_text().splitlines():
            parsed = json.loads(line)
            for event in parsed["events"]:
                events["otto"].add((parsed["session"], event["aid"], event["ts"], event["type"][:-1]))
    for name, kind, width in (("yoochoose-clicks.dat", "click", 4), ("yoochoose-buys.dat", "order", 5)):
        for line in (tmp_path / "yoochoose" / name).read_text().splitlines():
            session, iso, item, *rest = line.split(",")
            assert len(rest) == width - 3
            ts = round(datetime.strptime(iso, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp() * 1000)
            events["yoochoose"].add((int(session), int(item), ts, kind))
    for name, kind, header in (
        ("train-item-views.csv", "click", "sessionId;userId;itemId;timeframe;eventdate"),
        ("train-purchases.csv", "order", "sessionId;userId;timeframe;eventdate;ordernumber;itemId"),
    ):
        first, *lines = (tmp_path / "diginetica" / name).read_text().splitlines()
        assert first == header
        for line in lines:
            row = dict(zip(header.split(";"), line.split(";"), strict=True))
            day = datetime.fromisoformat(row["eventdate"]).replace(tzinfo=UTC)
            ts = int(day.timestamp()) * 1000 + int(row["timeframe"])
            events["diginetica"].add((int(row["sessionId"]), int(row["itemId"]), ts, kind))
    all_events = events["otto"]
    assert len(all_events) == sum(folders["otto"].counts.values()) - 600  # the counts include sessions
    assert events["yoochoose"] == events["diginetica"] == {event for event in all_events if event[3] != "cart"}
    end = int(datetime(2026, 1, 4, tzinfo=UTC).timestamp()) * 1000
    assert events["table"] == {event for event in all_events if event[2] < end}
    test_lines = (tmp_path / "otto" / "otto-recsys-test.jsonl").read_text().splitlines()
    assert [json.loads(line)["session"] for line in test_lines] == list(range(401, 601))


def test_draw_events_orders_items_by_propensity() -> None:
    habits = Habits()
    truth = Truth(make_items(40, habits, seed=2), habits)
    events = draw_events(truth, 1, 0, 100_000, np.random.default_rng(1))
    clicked = events.filter(pl.col("kind") == 0).unique(["session", "item"])["item"].to_numpy()
    ordered = events.filter(pl.col("kind") == 2)["item"].to_numpy()
    mean = np.bincount(clicked, minlength=40) * truth.order_propensity
    deviation = (np.bincount(ordered, minlength=40) - mean) / np.sqrt(mean * (1.0 - truth.order_propensity))
    assert np.abs(deviation).max() < 4.5


def test_simulate_writes_the_ground_truth(table: Simulation) -> None:
    truth = Truth.load(table.folder)
    assert truth.habits == Habits()
    assert truth.items.equals(make_items(500, Habits(), seed=1))


@pytest.mark.parametrize("format", ["table", "diginetica", "yoochoose", "otto"])
def test_simulate_files_are_read_without_rejects(tmp_path: Path, format: str) -> None:
    done = simulate(tmp_path / "shop", format=format, **SMALL)
    log = read_events(done.folder, format)
    events, rejects = pl.collect_all([log.events, log.rejects])
    assert len(rejects) == 0
    assert {f"{kind}s": count for kind, count in events["event_type"].value_counts().iter_rows()} == {
        name: count for name, count in done.counts.items() if name != "sessions" and count
    }
    assert events["session_id"].n_unique() == done.counts["sessions"]
    assert set(events["item_id"]) <= set(Truth.load(done.folder).items["item_id"])


def test_simulate_names_files_from_first_day(tmp_path: Path) -> None:
    done = simulate(tmp_path / "shop", **SMALL, first_day=date(2028, 2, 28))
    assert [path.name for path in done.files] == [
        "events-2028-02-28.csv.gz",
        "events-2028-02-29.csv.gz",
        "events-2028-03-01.csv.gz",
    ]
