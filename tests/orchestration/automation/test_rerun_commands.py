"""The command of an alert does again what failed: each is run in a shell, as an operator runs it."""

from __future__ import annotations

import datetime as dt
import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration.automation.sensors import VERDICT_IS_COMING, failed_run_alerts
from orchestration.runtime.instance import prepare_instance
from orchestration.shop import models
from orchestration.shop.home import load_shop
from serving.deployment import deploy
from serving.in_process import InProcessServer
from tests.orchestration.conftest import DAYS, GRID, K, ShopInTest, copied_shop, write_random_model

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def shop(deployed_home: Path, tmp_path: Path) -> Iterator[ShopInTest]:
    with copied_shop(deployed_home, tmp_path / "shop") as shop:
        prepare_instance(load_shop(shop.home))
        yield shop


def command_of(shop: ShopInTest, result: Any) -> str:
    """The command that the alert of a failed run gives."""
    assert not result.success
    now = dt.datetime.now(dt.UTC)
    cursor = json.dumps({"since": (now - dt.timedelta(minutes=1)).isoformat(), "told": []})
    alerts, _ = failed_run_alerts(load_shop(shop.home), shop.instance, cursor, now + 2 * VERDICT_IS_COMING)
    (alert,) = [alert for alert, _ in alerts if alert.run_id == result.run_id]
    return alert.command


def execute(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def damage(shop: ShopInTest) -> str:
    """Make the first day's file one that is not ingested; gives its content before."""
    file = shop.home / "raw" / f"events-{DAYS[0]}.csv"
    content = file.read_text()
    file.write_text(content.replace("T10", "Tx"))
    return content


@pytest.mark.slow
def test_a_range_of_days_is_done_again_as_a_range(shop: ShopInTest) -> None:
    content = damage(shop)
    span = {"dagster/asset_partition_range_start": str(DAYS[0]), "dagster/asset_partition_range_end": str(DAYS[-1])}
    command = command_of(shop, shop.run("ingestion", tags=span))
    assert "--select events" in command
    (shop.home / "raw" / f"events-{DAYS[0]}.csv").write_text(content)
    made = execute(command)
    assert made.returncode == 0, made.stderr[-2000:]
    days = shop.lake.open("events").to_pyarrow_table(columns=["ts"])["ts"]
    assert {moment.as_py().date() for moment in days} == set(DAYS)


@pytest.mark.slow
def test_a_rollback_is_done_again_to_the_same_version(shop: ShopInTest) -> None:
    to_seven = shop.run("rollback", ops={"rolled_back_model": {"config": {"version": 7}}})
    assert shlex.split(command_of(shop, to_seven))[-3:] == ["rollback", "--version", "7"]
    command = command_of(shop, shop.run("rollback"))
    assert shlex.split(command)[-1] == "rollback"
    assert execute(command).returncode == 2, "there is still no version before the live one"
    loaded = load_shop(shop.home)
    write_random_model(loaded.models / "other", version="other")
    models.set_newest(loaded, loaded.models / "other")
    with InProcessServer(loaded.triton_repository) as server:
        deploy(loaded.models / "other", server, golden_pi=GRID, golden_k=K)
    made = execute(command)
    assert made.returncode == 0, made.stderr[-2000:]
    assert "model random" in made.stdout


def test_what_a_person_picked_is_done_again_and_no_more(shop: ShopInTest) -> None:
    """A run of two assets of a job, with the asset of another."""
    damage(shop)
    picked = [dg.AssetKey("events"), dg.AssetKey("scoring_sessions")]
    result = shop.run("__ASSET_JOB", str(DAYS[0]), asset_selection=picked)
    words = shlex.split(command_of(shop, result))
    assert words[words.index("--select") + 1] == "events,scoring_sessions"
    assert words[-2:] == ["--partition", str(DAYS[0])]
