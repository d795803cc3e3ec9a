"""Ten thousand randomly damaged lines per format: no crash, and every line is an event or a reject."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from multitron_core.events.formats.format import TEXT_LIMIT
from multitron_core.events.formats.table import ColumnMapping
from multitron_core.events.read import read_events

LINES = 10_000


def diginetica(number: int) -> str:
    return f"{number // 5};NA;{number % 97};{number * 1000 % 86_400_000};2016-05-{1 + number % 28:02}"


def yoochoose(number: int) -> str:
    return f"{number // 5},2014-04-{1 + number % 28:02}T10:51:09.{number % 1000:03}Z,{214_000_000 + number % 97},0"


def otto(number: int) -> str:
    events = [
        {"aid": number % 97 + step, "ts": 1_661_724_000_278 + 1000 * step, "type": kind}
        for step, kind in enumerate(["clicks", "carts", "orders"][: 1 + number % 3])
    ]
    # Every fourth line has the separators of other JSON writers.
    separators = (", ", ": ") if number % 4 == 0 else (",", ":")
    return json.dumps({"session": number, "events": events}, separators=separators)


def table(number: int) -> str:
    quoted = f'"{number // 5}"' if number % 7 == 0 else str(number // 5)
    return f"{quoted},{number % 97},2026-01-{1 + number % 28:02}T10:51:09+02:00,{['click', 'order'][number % 2]}"


def table_json(number: int) -> str:
    time = f"2026-01-{1 + number % 28:02}T10:51:09Z"
    return json.dumps({"session_id": str(number // 5), "item_id": number % 97, "ts": time, "event_type": "click"})


FORMATS: dict[str, tuple[str, str, str, Callable[[int], str]]] = {
    # name: (format, file name, header, line)
    "diginetica": ("diginetica", "train-item-views.csv", "sessionId;userId;itemId;timeframe;eventdate", diginetica),
    "yoochoose": ("yoochoose", "yoochoose-clicks.dat", "", yoochoose),
    "otto": ("otto", "otto-recsys-train.jsonl", "", otto),
    "table-csv": ("table", "events.csv", "session_id,item_id,ts,event_type", table),
    "table-json": ("table", "events.ndjson", "", table_json),
}


def damaged(line: bytes, dice: random.Random) -> bytes:
    """A line with one to three random changes, without a line end in it."""
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(line) + 1)
        change = dice.randrange(6)
        if change == 0:
            line = line[:place]
        elif change == 1:
            line = line[:place] + bytes([dice.randrange(256)]) + line[place:]
        elif change == 2:
            line = line[:place] + bytes([dice.randrange(256)]) + line[place + 1 :]
        elif change == 3:
            line = line[:place] + line[place + dice.randint(1, 10) :]
        elif change == 4:
            line = line[place:] + line[:place]
        else:
            line = line + line
    return line.replace(b"\n", b" ")


def read(folder: Path, format: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    # Half of the lines are damaged, too many for the automatic choice of the item type.
    columns = ColumnMapping(item_type="integer")
    log = read_events(folder, format, columns=columns, orders_required=False)
    events, rejects = pl.collect_all([log.events, log.rejects], engine="streaming")
    return events, rejects


@pytest.mark.parametrize("name", FORMATS)
def test_read_events_accounts_for_every_line(name: str, tmp_path: Path) -> None:
    format, file_name, header, line = FORMATS[name]
    dice = random.Random(name)
    good = [line(number).encode() for number in range(2 * LINES)]
    bad = set(dice.sample(range(2 * LINES), LINES))
    lines = [damaged(text, dice) if number in bad else text for number, text in enumerate(good)]
    raw = (header.encode() + b"\n" if header else b"") + b"\n".join(lines) + b"\n"
    (tmp_path / file_name).write_bytes(raw)
    first = 2 if header else 1

    events, rejects = read(tmp_path, format)
    accepted, rejected = set(events["line"]), set(rejects["line"])
    assert not accepted & rejected
    assert accepted | rejected == set(range(first, 2 * LINES + first))
    assert len(rejects) == len(rejected)  # a line is rejected once
    assert {number + first for number in range(2 * LINES) if number not in bad} <= accepted
    assert len(rejected) > LINES / 2  # some changes leave a valid line
    assert rejects["reason"].null_count() == 0
    assert events.null_count().sum_horizontal().item() == 0
    assert rejects["text"].str.len_chars().max() <= TEXT_LIMIT  # type: ignore[operator]
    assert events["ts"].dt.year().is_between(1990, 2099).all()
    assert events["session_id"].str.len_bytes().min() > 0  # type: ignore[operator]

    undamaged = tmp_path / "good"
    undamaged.mkdir()
    (undamaged / file_name).write_bytes(
        (header.encode() + b"\n" if header else b"")
        + b"".join(text + b"\n" if number not in bad else b"\n" for number, text in enumerate(good))
    )
    alone, empty = read(undamaged, format)
    assert set(empty["reason"]) == {"empty line"}
    kept = events.filter(pl.col("line").is_in(alone["line"].unique().implode()))
    columns = ["line", "session_id", "item_id", "ts", "event_type"]
    assert kept.sort(columns).equals(alone.sort(columns))  # damaged neighbours change no valid line


@pytest.mark.parametrize("name", FORMATS)
def test_read_events_of_compressed_files(name: str, tmp_path: Path) -> None:
    format, file_name, header, line = FORMATS[name]
    raw = "".join(text + "\n" for text in [*([header] if header else []), *map(line, range(500)), "rubbish"]).encode()
    logs = []
    for suffix in ("", ".gz", ".zst"):
        folder = tmp_path / f"as{suffix}"
        folder.mkdir()
        path = folder / (file_name + suffix)
        if suffix == ".zst":
            # polars compresses the file, because the standard library has no zstd before Python 3.14.
            pl.DataFrame({"line": raw.decode().splitlines()}).write_csv(
                path, include_header=False, quote_style="never", separator="\x1f", compression="zstd"
            )
        else:
            path.write_bytes(gzip.compress(raw) if suffix == ".gz" else raw)
        logs.append([frame.drop("file") for frame in read(folder, format)])
    for events, rejects in logs[1:]:
        assert events.equals(logs[0][0])
        assert rejects.equals(logs[0][1])
    assert len(logs[0][1]) == 1
