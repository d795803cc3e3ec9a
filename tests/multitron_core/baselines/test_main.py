"""The command `python -m multitron_core.baselines`."""

from __future__ import annotations

from pathlib import Path

import pytest

from multitron_core.baselines.__main__ import main
from tests.multitron_core.baselines.conftest import TRAIN


def test_main_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        TRAIN.save(tmp_path / split)
    assert main(["--sessions", str(tmp_path), "--k", "3"]) == 0
    assert "click_recall_3" in capsys.readouterr().out
    assert main(["--sessions", str(tmp_path / "nowhere")]) == 2
    assert "cannot be read" in capsys.readouterr().err
