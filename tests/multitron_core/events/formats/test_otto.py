"""OTTO lines: canonical form, other JSON, rejects."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from multitron_core.events.read import read_events

EVENTS = [
    {"aid": 59625, "ts": 1661724000278, "type": "clicks"},
    {"aid": 7, "ts": 1661724001000, "type": "carts"},
    {"aid": 123456789012345678, "ts": 1661724002000, "type": "orders"},
]
CANONICAL = json.dumps({"session": 12, "events": EVENTS}, separators=(",", ":"))


def read(folder: Path, *lines: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    (folder / "otto-recsys-train.jsonl").write_text("".join(line + "\n" for line in lines))
    log = read_events(folder, "otto")
    return log.events.collect(), log.rejects.collect()


def test_otto_parses_canonical_lines(tmp_path: Path) -> None:
    events, rejects = read(tmp_path, CANONICAL, CANONICAL.replace(":12,", ":13,"))
    rows = [(59625, 1661724000278, "click"), (7, 1661724001000, "cart"), (123456789012345678, 1661724002000, "order")]
    assert events.select("session_id", "item_id", pl.col("ts").dt.epoch("ms"), "event_type", "line").rows() == [
        (session, *row, line) for line, session in ((1, "12"), (2, "13")) for row in rows
    ]
    assert rejects.is_empty()


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({"session": 12, "events": EVENTS}),
        json.dumps({"events": EVENTS, "session": 12, "more": None}, separators=(",", ":")),
    ],
)
def test_otto_parses_other_json_like_canonical_lines(tmp_path: Path, line: str) -> None:
    assert read(tmp_path, line)[0].equals(read(tmp_path, CANONICAL)[0])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "empty line"),
        (CANONICAL[:-1], "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "not an object with session and events"),
        (CANONICAL.replace("12", '"12"', 1), "session is not an integer"),
        (CANONICAL.replace("12", "-12", 1), "session is not an integer"),
        ('{"session":12,"events":[]}', "a session without events"),
        ('{"session":12,"events":[1]}', "an event is not an object"),
        (CANONICAL.replace("59625", "true"), "aid is not an integer"),
        (CANONICAL.replace("carts", "views"), "type is not clicks, carts or orders"),
        (CANONICAL.replace("1661724000278", "1661724000"), "ts is not a time in milliseconds"),
    ],
)
def test_otto_rejects_the_whole_line(tmp_path: Path, line: str, reason: str) -> None:
    events, rejects = read(tmp_path, line, CANONICAL)
    assert events["line"].to_list() == [2, 2, 2]
    assert rejects.select("line", "reason").rows() == [(1, reason)]
