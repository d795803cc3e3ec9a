"""The small shop of the chaos tests: its home, its processes, and a digest of its tables."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl

from multitron_core.errors import InputError
from multitron_core.lake.contracts import LIST_TABLES
from multitron_core.simulator.simulation import simulate
from orchestration.shop.home import Shop, load_shop
from orchestration.shop.settings import Settings
from orchestration.shop.toml import write_shop

ROOT = Path(__file__).resolve().parents[1]
LAST_DAY = dt.date(2026, 3, 29)
"""The day whose night is disturbed. It has no 2:30 in Berlin: daylight saving time begins."""
GRID = ("0.00", "0.50")
SETTINGS: dict[str, Any] = {
    "source": {"path": "raw", "format": "table", "files": "events-{date}.csv.gz"},
    "calendar": {"first_day": LAST_DAY - dt.timedelta(days=3), "last_day": LAST_DAY},
    "sessions": {"split_days": 1, "state_days": 1},
    "model": {"training": {"epochs": 4}, "front_points": 5},
    "scoring": {"pi": GRID, "k": 10},
    "night": {"catch_up_days": 1},
    "triton": {"scorer": "in_process"},
}


def disturbed_day(shop: Shop) -> dt.date:
    """The day whose night is disturbed: the last day of the calendar."""
    last = shop.settings.calendar.last_day
    assert last is not None, "the calendar of a chaos shop has a last day"
    return last


def environment(**more: str) -> dict[str, str]:
    """The environment of a process of the shop: this one without MULTITRON_* and DAGSTER_*, and more variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MULTITRON_", "DAGSTER_"))}
    triton = {name: os.environ[name] for name in ("MULTITRON_TRITON_HOME",) if name in os.environ}
    return {**kept, **triton, "OMP_WAIT_POLICY": "passive", "PYTHONPATH": str(ROOT), **more}


def start(home: Path, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """Start a process of `chaos.night` in a home."""
    return subprocess.Popen(
        [sys.executable, "-m", "chaos.night", "--home", str(home), *arguments],
        cwd=ROOT,
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 300) -> tuple[int, str]:
    """Wait for a process; returns its exit status and its errors, or the end of its standard error after a crash."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out.strip() or (err.strip()[-2000:] if process.returncode else "")


def night(home: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """Run a process of `chaos.night` to its end: `start`, then `finish`."""
    return finish(start(home, *arguments, **env))


def make_base(home: Path, *, sessions: int = 2_000, items: int = 300) -> Path:
    """Create a home with a trained and deployed model, before its last night; returns `home`."""
    from orchestration.lifecycle.model import (  # imports torch
        deploy_model,
        measure_model,
        prepare_training,
        train_model,
    )
    from serving.deployment import deploy
    from serving.in_process import InProcessServer

    write_shop(home, Settings.model_validate(SETTINGS))
    shop = load_shop(home)
    first = shop.settings.calendar.first_day
    for file in simulate(home / "raw", sessions=sessions, items=items, days=4, first_day=first).files:
        os.utime(file, (0, 0))
    from multitron_core.events.ingestion import ingest
    from orchestration.shop.sources import raw_source

    ingest(raw_source(shop), shop.lake(), first, LAST_DAY - dt.timedelta(days=1))
    prepare_training(shop)
    folder = train_model(shop)
    measure_model(shop, folder)
    with InProcessServer(shop.triton_repository) as server:
        try:
            deploy_model(shop, folder, server)
        except InputError:  # a model of four epochs does not pass the gates; only equal scores matter
            deploy(folder, server, golden_pi=GRID, golden_k=10)
    return home


def digest(shop: Shop | Path) -> dict[str, str]:
    """What readers get of the disturbed night: per table and preference a hash of the published rows, or `none`."""
    shop = load_shop(shop) if isinstance(shop, Path) else shop
    lake, day = shop.lake(), disturbed_day(shop)
    found = {}
    for table in LIST_TABLES:
        for pi in shop.settings.preferences:
            try:
                rows = lake.read_recommendations(pi, day, table=table)
            except InputError:
                found[f"{table} {pi}"] = "none"
                continue
            key = [name for name in rows.columns if name in ("session_id", "for_item_id", "audience")]
            rows = rows.sort(*key, "rank").with_columns(pl.col("score").round(4))
            found[f"{table} {pi}"] = hashlib.sha256(rows.write_csv().encode()).hexdigest()[:16]
    return found
