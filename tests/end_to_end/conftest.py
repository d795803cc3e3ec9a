"""One simulated shop, taken the whole way once by the demo's own command; the tests look at what it left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.shop.settings import demo_settings
from orchestration.shop.toml import write_shop

ROOT = Path(__file__).resolve().parents[2]
SIZE = ("--sessions", "4000", "--items", "700")
"""Items enough that a list of 20 popular ones is no answer: the deployment gate asks for more than that."""
EPOCHS = 6
FRONT_POINTS = 5


def run_demo(home: Path, *arguments: str, timeout: float = 500) -> subprocess.CompletedProcess[str]:
    """`make demo` without the installation, in a process of its own."""
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
    """What a person's shell would have, and the shop."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MULTITRON_", "DAGSTER_"))}
    kept = {name: os.environ[name] for name in ("MULTITRON_TRITON_HOME", "MULTITRON_SCORER") if name in os.environ}
    return {
        **inherited,
        **kept,
        "MULTITRON_HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster"),
        "OMP_WAIT_POLICY": "passive",
    }


def small_shop(home: Path) -> Path:
    """A home whose few sessions are seen often enough that the model passes the deployment gate with room."""
    settings = demo_settings()
    short = {"training": {"epochs": EPOCHS}, "gate_baseline": "popularity", "front_points": FRONT_POINTS}
    model = settings.model.model_copy(update=short)
    write_shop(home, settings.model_copy(update={"model": model}))
    return home


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The home of a shop that the demo has made, and what it printed."""
    home = small_shop(tmp_path_factory.mktemp("shop"))
    result = run_demo(home, *SIZE)
    assert result.returncode == 0, result.stdout + result.stderr
    return home, result.stdout
