"""Single-objective models as a baseline."""

from __future__ import annotations

from pathlib import Path

import pytest

from multitron_core.baselines.__main__ import main
from multitron_core.baselines.single_objective import evaluate_single_objective
from multitron_core.errors import InputError
from multitron_core.events.read import read_events
from multitron_core.sessions.prepare import prepare_sessions
from multitron_core.simulator.simulation import simulate
from multitron_core.training import presets
from multitron_core.training.config import TrainingConfig
from multitron_core.training.trainer import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared sessions, a model trained on clicks only, and one trained on sampled preferences."""
    folder = tmp_path_factory.mktemp("single")
    simulate(folder / "raw", sessions=300, items=40, seed=3)
    prepared = prepare_sessions(read_events(folder / "raw", "table"), min_item_clicks=1)
    prepared.save(folder / "sessions")
    for name, trained_pi in (("single", "0.00"), ("sampled", None)):
        changed = {"epochs": 1, "trained_pi": trained_pi}
        train(prepared, presets.demo().changed(training=changed), folder / name, progress=False)
    return folder


def test_evaluate_single_objective_at_its_preference(folder: Path) -> None:
    row = evaluate_single_objective(folder / "single", folder / "sessions").to_dicts()[0]
    assert row["baseline"] == "single-objective model, pi 0.00"
    assert (row["pi_click"], row["pi_order"]) == (1.0, 0.0)
    assert 0.0 < row["click_recall_20"] <= 1.0


def test_main_prints_the_model_below_the_baselines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--sessions", str(folder / "sessions"), "--single-objective", str(folder / "single")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.index("session neighbours") < printed.index("single-objective model, pi 0.00")
    expected = evaluate_single_objective(folder / "single", folder / "sessions")["click_recall_20"].item()
    assert f"{expected:.4f}" in printed


def test_main_refuses_a_model_of_sampled_preferences(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--sessions", str(folder / "sessions"), "--single-objective", str(folder / "sampled")]
    assert main(arguments) == 2
    assert "it was trained on sampled preferences" in capsys.readouterr().err


@pytest.mark.parametrize("trained_pi", ["0.005", "2.00", "clicks"])
def test_training_config_refuses_bad_trained_pi(trained_pi: str) -> None:
    with pytest.raises(InputError, match="pi"):
        TrainingConfig(trained_pi=trained_pi)
