"""A demo that is killed at several steps and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from tests.end_to_end.conftest import ROOT, SIZE, environment, run_demo, small_shop, tables

pytestmark = pytest.mark.slow

GRID = ("0.00", "0.50")
"""Preferences of the killed demo: two of the undisturbed one."""


def kill_within(home: Path, step: str, seconds: float) -> None:
    """Start the demo, and kill it with SIGKILL some seconds after it prints the name of a step."""
    command = [sys.executable, "-m", "orchestration.cli.demo", "--home", str(home), *SIZE]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        output = ""
        while step not in output:
            letter = process.stdout.read(1)
            assert letter, f"it ended before {step!r}: {output}"
            output += letter
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)


def test_demo_killed_at_every_stage_makes_the_same_tables(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    home = small_shop(tmp_path / "shop", GRID)
    for step, seconds in (
        ("simulated shop", 0.5),
        ("job ingestion", 1.0),
        ("job training", 3.0),
        ("pi 0.50", 1.5),
    ):
        kill_within(home, step, seconds)
    result = run_demo(home, *SIZE)
    assert result.returncode == 0, result.stdout + result.stderr
    demo_home, _ = request.getfixturevalue("demo")  # after the kills: another process may be making it
    undisturbed = tables(demo_home, GRID)
    assert all(rows.equals(undisturbed[pi]) for pi, rows in tables(home, GRID).items())
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        states = {run.status for run in instance.get_runs()}
    assert states <= {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}, "a dead run is shown as running"
