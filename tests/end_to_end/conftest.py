"""A simulated shop, made once per test run by the command `multitron demo`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from multitron_core.lake.lake import Lake
from orchestration.shop.home import load_shop
from orchestration.shop.settings import demo_settings
from orchestration.shop.toml import write_shop
from tests.made_once import made_once

ROOT = Path(__file__).resolve().parents[2]
SIZE = ("--sessions", "4000", "--items", "700")
"""Enough items that the model passes the deployment gate: 20 popular items of few would be a good list already."""
EPOCHS = 6
FRONT_POINTS = 5
GRID = ("0.00", "0.25", "0.50", "0.75", "1.00")
"""The preferences of the demo."""


def run_demo(home: Path, *arguments: str, timeout: float = 500) -> subprocess.CompletedProcess[str]:
    """Run `make demo`, without the installation, in a new process."""
    return subprocess.run(
        [sys.executable, "-m", "orchestration.cli.demo", "--home", str(home), *arguments],
        cwd=ROOT,
        env=environment(home),
        text=True,
        capture_output=True,
        timeout=timeout,
        check=False,
    )


def environment(home: Path) -> dict[str, str]:
    """The environment of an operator's shell, and the shop."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MULTITRON_", "DAGSTER_"))}
    kept = {name: os.environ[name] for name in ("MULTITRON_TRITON_HOME", "MULTITRON_SCORER") if name in os.environ}
    return {
        **inherited,
        **kept,
        "MULTITRON_HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster"),
        "OMP_WAIT_POLICY": "passive",
    }


def small_shop(home: Path, grid: Sequence[str] = GRID) -> Path:
    """Write the settings of a shop that trains in seconds and passes the deployment gate; returns its home."""
    settings = demo_settings()
    short = {"training": {"epochs": EPOCHS}, "gate_baseline": "popularity", "front_points": FRONT_POINTS}
    model = settings.model.model_copy(update=short)
    write_shop(home, settings.model_copy(update={"model": model}))
    set_grid(home, grid)
    return home


def set_grid(home: Path, grid: Sequence[str]) -> None:
    """Change the preferences that a shop scores."""
    settings = load_shop(home).settings
    scoring = settings.scoring.model_copy(update={"pi": tuple(grid)})
    write_shop(home, settings.model_copy(update={"scoring": scoring}))


def tables(home: Path, grid: Sequence[str] = GRID) -> dict[str, pl.DataFrame]:
    """The released lists of each preference, without the model version, which differs between runs."""
    lake = Lake(home / "lake")
    return {pi: lake.read_recommendations(pi).drop("model_version") for pi in grid}


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> tuple[Path, str]:
    """The home of a shop that the demo has made, and its output; copy the home before a change."""

    def make(folder: Path) -> None:
        result = run_demo(small_shop(folder / "shop"), *SIZE)
        assert result.returncode == 0, result.stdout + result.stderr
        (folder / "output.txt").write_text(result.stdout)

    folder = made_once(tmp_path_factory, worker_id, "demo", make)
    return folder / "shop", (folder / "output.txt").read_text()


@pytest.fixture
def copied_demo(demo: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the home that the demo has made."""
    home = tmp_path / "shop"
    shutil.copytree(demo[0], home)
    return home
