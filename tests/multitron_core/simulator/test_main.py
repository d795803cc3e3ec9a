"""The command `python -m multitron_core.simulator`."""

from __future__ import annotations

from pathlib import Path

import pytest

from multitron_core.simulator.__main__ import main

SMALL = ["--sessions", "30", "--items", "20", "--days", "2", "--format", "otto"]


def test_main_writes_files_and_prints_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "shop"), *SMALL]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'shop'}: 2 files, 30 sessions, ")
    assert (tmp_path / "shop" / "otto-recsys-test.jsonl").exists()


def test_main_prints_an_error_for_refused_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "shop"), *SMALL, "--items", "5"]) == 2
    assert capsys.readouterr().err.startswith("error: a shop needs more items")
