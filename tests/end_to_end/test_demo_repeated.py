"""A repeated demo: the same tables, with the Triton server and without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from multitron_core.lake.lake import Lake
from tests.end_to_end.conftest import GRID, SIZE, run_demo, set_grid, tables

pytestmark = pytest.mark.slow


def test_demo_repeated_changes_no_row(copied_demo: Path) -> None:
    home = copied_demo
    before = tables(home)
    result = run_demo(home, *SIZE)
    assert result.returncode == 0, result.stdout + result.stderr
    assert all(rows.equals(before[pi]) for pi, rows in tables(home).items())
    assert Lake(home / "lake").partitions()["files"].to_list() == [1] * len(GRID)


def test_demo_without_triton_names_the_ways_to_score(
    copied_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTITRON_TRITON_HOME", str(tmp_path / "nowhere"))
    home, grid = copied_demo, (GRID[0], GRID[-1])
    set_grid(home, grid)
    with_server = tables(home, grid)
    refused = run_demo(home, *SIZE)
    assert refused.returncode == 2
    for word in ("nowhere", "MULTITRON_TRITON_URL", "MULTITRON_SCORER=in_process"):
        assert word in refused.stderr, refused.stderr
    monkeypatch.setenv("MULTITRON_SCORER", "in_process")
    before = Lake(home / "lake").version("recommendations")
    made = run_demo(home, *SIZE)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "without a Triton server" in made.stdout
    assert Lake(home / "lake").version("recommendations") >= before + len(grid), "every preference was scored again"
    for pi, rows in tables(home, grid).items():
        assert rows.drop("score").equals(with_server[pi].drop("score")), pi
