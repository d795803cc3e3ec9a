"""The demo on raw files: real ones, and wrong ones, which are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from multitron_core.lake.lake import Lake
from multitron_core.preference.keys import DEFAULT_GRID
from multitron_core.sessions.prepare import PreparedSessions
from orchestration.shop.home import load_shop
from orchestration.shop.toml import write_shop
from tests.end_to_end.conftest import FRONT_POINTS, run_demo

pytestmark = pytest.mark.slow
QUICK = {"front_points": FRONT_POINTS}


def test_demo_scores_diginetica_files_after_a_refusal(real_data: Path, tmp_path: Path) -> None:
    home = tmp_path / "shop"
    week = ("--data", str(real_data / "diginetica-week"), "--format", "diginetica")
    refused = run_demo(home, *week)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr
    for word in ("no train session", "2016-05-25", "split_days"):
        assert word in refused.stderr, refused.stderr
    settings = load_shop(home).settings
    write_shop(home, settings.model_copy(update={"model": settings.model.model_copy(update=QUICK)}))
    result = run_demo(home, *week, "--split-days", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    sessions = {pi: Lake(home / "lake").read_recommendations(pi)["session_id"].n_unique() for pi in DEFAULT_GRID}
    assert len(set(sessions.values())) == 1
    assert min(sessions.values()) > 10_000
    statistics = PreparedSessions.load(home / "sessions" / "training").statistics
    assert statistics["in"]["clicks"] == 76_821
    used = statistics["train"]["clicks"] + statistics["test"]["clicks"]
    assert used + sum(n for reason, n in statistics["dropped"].items() if reason.startswith("clicks")) == 76_821


def bad_inputs(real_data: Path, folder: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Wrong inputs by name: arguments, and the words that the error must contain."""
    week = real_data / "diginetica-week"
    empty, alone, dirty = folder / "empty", folder / "alone", folder / "dirty"
    for each in (empty, alone, dirty):
        each.mkdir()
    shutil.copy(week / "train-item-views.csv.gz", alone)
    shutil.copy(week / "train-purchases.csv.gz", dirty)
    (dirty / "train-item-views.csv").write_text(
        "sessionId;userId;itemId;timeframe;eventdate\n1;NA;7;0;2016-05-26\n" + "1;NA;x;9;2016-05-26\n" * 400
    )
    return {
        "an unknown format": (["--data", str(week), "--format", "csv"], ["csv", "diginetica"]),
        "an empty folder": (["--data", str(empty), "--format", "diginetica"], [str(empty), "hint"]),
        "no orders": (["--data", str(alone), "--format", "diginetica"], ["purchases", "hint"]),
        "bad lines": (["--data", str(dirty), "--format", "diginetica"], ["train-item-views.csv, line 3", "x"]),
        "data without format": (["--data", str(week)], ["FORMAT"]),
    }


@pytest.mark.parametrize(
    "name", ["an unknown format", "an empty folder", "no orders", "bad lines", "data without format"]
)
def test_demo_names_bad_input_and_a_hint(name: str, real_data: Path, tmp_path: Path) -> None:
    arguments, named = bad_inputs(real_data, tmp_path)[name]
    result = run_demo(tmp_path / "shop", *arguments)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    for word in named:
        assert word in result.stderr, result.stderr
