"""The command `python -m multitron_core.training`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multitron_core.sessions.prepare import PreparedSessions
from multitron_core.training.__main__ import main
from multitron_core.training.config import training_config
from tests.multitron_core.training.examples import shop, small


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    data = shop(sessions=60)
    PreparedSessions(data.train, data.train, data.vocabulary, {}).save(tmp_path / "prepared")
    return ["--sessions", str(tmp_path / "prepared"), "--out", str(tmp_path / "model"), "--device", "cpu"]


def test_main_trains_with_flat_dotted_and_nested_names(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**small().training.flat(), "schedule.shape": "cosine", "negatives": {"kept_negatives": 7}}
    del settings["schedule"], settings["kept_negatives"]
    command = [*options, "--preset", "demo", "--training", json.dumps({**settings, "epochs": 1})]
    assert main([*command, "--model", '{"dimension": 8, "layers": 1}']) == 0
    *rows, folder = capsys.readouterr().out.splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == [1]
    assert folder == str(tmp_path / "model")
    config = training_config(folder)
    assert (config.schedule.epochs, config.schedule.shape, config.negatives.kept_negatives) == (1, "cosine", 7)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--preset", "digi"], "error: unknown preset"),
        (["--training", '{"epochs": 0, "epoch": 1}'], "error: 2 settings are wrong"),
        (["--training", '{"epochs": 0}'], "error: a setting is wrong; where: TrainingConfig, schedule.epochs"),
        (["--model", '{"layer": 2}'], "error: unknown setting; where: ModelConfig, layer"),
    ],
)
def test_main_refuses_with_status_2(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str], wrong: list[str], words: str
) -> None:
    assert main([*options, *wrong]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
