"""The command `python -m multitron_core.sessions`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multitron_core.sessions.__main__ import main
from multitron_core.sessions.prepare import PreparedSessions


def test_main_requires_an_output(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--format", "table", "--data", "raw"])
    assert "--stats, --out" in capsys.readouterr().err


def test_main_prints_statistics_and_writes_sessions(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--format", "diginetica", "--data", str(real_data / "diginetica-week")]
    assert main([*command, "--stats"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: the split leaves no train session")
    assert "2016-05-25" in message
    assert "split_days" in message
    assert main([*command, "--split-days", "2", "--stats", "--out", str(tmp_path / "out")]) == 0
    assert "5,687" in capsys.readouterr().out
    assert len(PreparedSessions.load(tmp_path / "out").train) == 5_687


def test_main_reads_a_table_with_a_mapping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"u,{item},2026-01-0{day}T00:0{item}:00Z\n" for day in (1, 4) for item in range(3)]
    (tmp_path / "events.csv").write_text("customer,sku,at\n" + "".join(2 * lines + 2 * lines))
    columns = json.dumps({"user_id": "customer", "item_id": "sku", "ts": "at", "event_type": None, "session_gap": 45})
    command = ["--format", "table", "--data", str(tmp_path / "events.csv"), "--columns", columns, "--without-orders"]
    assert main([*command, "--stats"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:3]] == [
        ["train", "1", "12", "0"],
        ["test", "1", "12", "0"],
    ]
