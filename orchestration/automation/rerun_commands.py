"""Shell commands that status, alerts and the demo print. They work in any folder, except `make ui`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.assets.serving import ROLLBACK, ROLLED_BACK
from orchestration.automation.jobs import JOB_ASSETS
from orchestration.automation.run_history import RANGE_TAGS
from orchestration.runtime.partitions import PARTITION_TAG
from orchestration.shop.home import DEMO_HOME, HOME_VARIABLE, Shop

WORKSPACE = Path(__file__).resolve().parents[2] / "workspace.yaml"


def ui_command(shop: Shop) -> str:
    """Start the UI and the daemon of a shop, until Ctrl-C; to be run in the checkout."""
    return "make ui" + ("" if shop.home == DEMO_HOME.resolve() else f" {HOME_VARIABLE}={shlex.quote(str(shop.home))}")


def start_daemon_command(shop: Shop) -> str:
    """Start the daemon without the UI, in the foreground, as a service would."""
    return _command(shop, "dagster-daemon", ["run", "-w", str(WORKSPACE)])


def start_sensor_command(shop: Shop, name: str) -> str:
    """Start a sensor; Dagster keeps it started."""
    return _command(shop, "dagster", ["sensor", "start", name, "-w", str(WORKSPACE)])


def rerun_command(shop: Shop, job: str, partition: str | None) -> str:
    """Materialize the assets of a job again, in the foreground and without the daemon.

    Args:
        shop: the shop.
        job: a key of `JOB_ASSETS`.
        partition: partition key of the job; None for a job without partitions.
    """
    return _materialize(shop, JOB_ASSETS[job], ["--partition", partition] if partition else [])


def rerun_command_of(shop: Shop, run: dg.DagsterRun) -> str:
    """Repeat a run: the same assets, partition or range of partitions, and op config."""
    selected = {key.to_user_string() for key in run.asset_selection or ()}
    selected |= {check.asset_key.to_user_string() for check in run.asset_check_selection or ()}
    ops: Any = run.run_config.get("ops") or {}
    if run.job_name == ROLLBACK:
        version = ops.get(ROLLED_BACK, {}).get("config", {}).get("version")
        return _command(shop, "multitron", ["rollback", *([] if version is None else ["--version", str(version)])])
    # A run of a whole job selects no assets by name; a run of selected assets may have a job of Dagster's.
    job_assets = JOB_ASSETS.get(run.job_name, ())
    assets = [name for name in job_assets if not selected or name in selected] or sorted(selected)
    partition, bounds = run.tags.get(PARTITION_TAG), [run.tags.get(tag) for tag in RANGE_TAGS]
    options = ["--partition", partition] if partition else []
    if all(bounds):
        options = ["--partition-range", "...".join(str(bound) for bound in bounds)]
    if ops:
        options += ["--config-json", json.dumps({"ops": ops})]
    return _materialize(shop, assets or ["*"], options)


def _materialize(shop: Shop, assets: Sequence[str], options: Sequence[str]) -> str:
    words = ["asset", "materialize", "-m", "orchestration.definitions", "--select", ",".join(assets), *options]
    return _command(shop, "dagster", words)


def _command(shop: Shop, program: str, words: Sequence[str]) -> str:
    homes = {HOME_VARIABLE: shop.home, "DAGSTER_HOME": shop.dagster_home}
    path = Path(sys.executable).with_name(program)
    return " ".join(
        [
            *(f"{name}={shlex.quote(str(folder))}" for name, folder in homes.items()),
            *(shlex.quote(word) for word in (str(path), *words)),
        ]
    )
