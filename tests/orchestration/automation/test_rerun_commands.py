"""Re-run commands: each slow test executes one in a shell, as an operator does."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration.automation.rerun_commands import rerun_command, rerun_command_of
from orchestration.runtime.instance import prepare_instance
from orchestration.shop.home import load_shop
from tests.orchestration.conftest import DAYS, GRID, SPAN, ShopInTest, switch_models

ROOT = Path(__file__).resolve().parents[3]


def command_of(shop: ShopInTest, result: Any) -> str:
    """The re-run command of a run."""
    run = shop.instance.get_run_by_id(result.run_id)
    assert run is not None
    return rerun_command_of(load_shop(shop.home), run)


def execute(shop: ShopInTest, command: str) -> subprocess.CompletedProcess[str]:
    prepare_instance(load_shop(shop.home))
    return subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.slow
def test_rerun_command_scores_and_releases_a_partition(bare_shop: ShopInTest) -> None:
    bare_shop.ingest()
    assert bare_shop.run("session_preparation", str(DAYS[0])).success
    command = rerun_command(load_shop(bare_shop.home), "scoring", f"{DAYS[0]}|{GRID[0]}")
    done = execute(bare_shop, command)
    assert done.returncode == 0, done.stderr[-2000:]
    assert bare_shop.lake.publications()["pi"].unique().to_list() == [GRID[0]], "checked and released"
    assert str(Path(sys.executable).parent) in command


@pytest.mark.slow
def test_rerun_command_of_a_range_repeats_the_range(bare_shop: ShopInTest) -> None:
    file = bare_shop.home / "raw" / f"events-{DAYS[0]}.csv"
    content = file.read_text()
    file.write_text(content.replace("T10", "Tx"))
    result = bare_shop.run("ingestion", tags=SPAN)
    assert not result.success
    command = command_of(bare_shop, result)
    assert "--select events" in command
    file.write_text(content)
    done = execute(bare_shop, command)
    assert done.returncode == 0, done.stderr[-2000:]
    moments = bare_shop.lake.open("events").to_pyarrow_table(columns=["ts"])["ts"]
    assert {moment.as_py().date() for moment in moments} == set(DAYS)


@pytest.mark.slow
def test_rerun_command_of_a_rollback_keeps_its_version(bare_shop: ShopInTest, redeployed_home: Path) -> None:
    to_seven = bare_shop.run("rollback", ops={"rolled_back_model": {"config": {"version": 7}}})
    assert not to_seven.success
    assert shlex.split(command_of(bare_shop, to_seven))[-3:] == ["rollback", "--version", "7"]
    command = command_of(bare_shop, bare_shop.run("rollback"))
    assert shlex.split(command)[-1] == "rollback"
    assert execute(bare_shop, command).returncode == 2, "there is no version before the live one yet"
    switch_models(bare_shop, redeployed_home)
    done = execute(bare_shop, command)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "model random" in done.stdout


def test_rerun_command_of_selected_assets_repeats_only_them(bare_shop: ShopInTest) -> None:
    selected = [dg.AssetKey("events"), dg.AssetKey("scoring_sessions")]
    result = bare_shop.run("__ASSET_JOB", str(DAYS[0]), asset_selection=selected)
    words = shlex.split(command_of(bare_shop, result))
    assert words[words.index("--select") + 1] == "events,scoring_sessions"
    assert words[-2:] == ["--partition", str(DAYS[0])]
