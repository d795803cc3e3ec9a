"""The command `python -m multitron_core.front`."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from safetensors.torch import save_file

from multitron_core.front.__main__ import main
from multitron_core.front.files import kept_volume
from multitron_core.front.measurement import MAX_RANK
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.operating_point import FILE_NAME
from tests.multitron_core.front.conftest import SMALL, random_sessions


@pytest.fixture
def arguments(model: MultiTRON, tmp_path: Path) -> list[str]:
    """Arguments for a model folder with prepared sessions; the second is the model folder."""
    random_sessions(40).save(tmp_path / "sessions" / "test")
    (tmp_path / "model").mkdir()
    save_file(model.state_dict(), tmp_path / "model" / "weights.safetensors")
    config = {
        "model": model.config.model_dump(),
        "training": SMALL.flat(),
        "vocabulary_hash": "hash",
        "version": "v1",
    }
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    return ["--model", str(tmp_path / "model"), "--sessions", str(tmp_path / "sessions"), "--points", "4"]


def test_main_prints_and_saves(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--save", "--record", "newsletter", "--k", "3"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "click_recall_3",
        "worst_reversal",
        "change between the first and the last non-dominated point with trained ranks (pi_order 0.",
        "normalised hypervolume",
        "raw hypervolume (reference point (",
        "non-dominated points: ",
        "operating point: pi 0.",
    ):
        assert words in printed
    folder = Path(arguments[1])
    assert pl.read_parquet(folder / "front.parquet").height == 4
    assert str(kept_volume(folder).raw) in printed
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / FILE_NAME).read_text())["newsletter"]["model_version"] == "v1"


def test_main_refuses_another_vocabulary(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    config = Path(arguments[1]) / "config.json"
    config.write_text(config.read_text().replace('"hash"', '"other"'))
    assert main(arguments) == 2
    assert "another vocabulary" in capsys.readouterr().err


@pytest.mark.parametrize("k", [0, MAX_RANK + 1])
def test_main_checks_the_list_length_before_it_reads(k: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "none", "--sessions", "none", "--k", str(k)]) == 2
    assert "list length is out of range" in capsys.readouterr().err
