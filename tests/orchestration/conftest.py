"""A small shop with a deployed model of random weights, scored in process: runs of the real jobs take seconds."""

from __future__ import annotations

import datetime as dt
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from multitron_core.lake.lake import Lake
from multitron_core.model.config import ModelConfig
from multitron_core.model.folder import write_untrained_model
from multitron_core.sessions.vocabulary import Vocabulary
from orchestration.code_location import build_definitions
from orchestration.runtime.partitions import night_key
from orchestration.shop import models
from orchestration.shop.home import load_shop
from orchestration.shop.settings import Settings
from orchestration.shop.toml import write_shop
from serving.deployment import deploy
from serving.in_process import InProcessServer
from tests.made_once import made_once

DAYS = [dt.date(2026, 3, day) for day in (1, 2, 3)]
SESSIONS = (60, 25, 60)  # per day; the second day has lost more than half of its sessions
SPAN = {"dagster/asset_partition_range_start": str(DAYS[0]), "dagster/asset_partition_range_end": str(DAYS[-1])}
"""Tags of a run over all days."""
ITEMS, K = 40, 5
GRID = ("0.00", "0.50")
SETTINGS: dict[str, Any] = {
    "source": {"path": "raw", "format": "table", "files": "events-{date}.csv"},
    "calendar": {"first_day": DAYS[0], "last_day": DAYS[-1]},
    "sessions": {"state_days": 1},
    "model": {"front_points": 5},
    "scoring": {"pi": GRID, "k": K},
    "triton": {"scorer": "in_process"},
    "channels": {"newsletter": {"owner": "crm@example.com", "pi": "0.50", "k": 3}},
}

logging.getLogger("torch.__trace").propagate = False  # thousands of lines per export, which pytest would keep


def write_raw_events(folder: Path) -> None:
    """Write one file per day: each session clicks three items."""
    folder.mkdir(parents=True)
    for day, sessions in zip(DAYS, SESSIONS, strict=True):
        rows = [
            (f"s{session:03}", 1000 + (7 * session + 3 * click + day.day) % ITEMS, f"{day}T10:{session:02}:{click:02}")
            for session in range(sessions)
            for click in range(3)
        ]
        events = pl.DataFrame(rows, schema=["session_id", "item_id", "ts"], orient="row")
        orders = events.head(2).with_columns(pl.lit(f"{day}T12:00:00").alias("ts"), event_type=pl.lit("order"))
        file = folder / f"events-{day}.csv"
        pl.concat([events.with_columns(event_type=pl.lit("click")), orders]).write_csv(file)
        os.utime(file, (0, 0))  # an old file is complete


def write_random_model(folder: Path, *, version: str = "random") -> None:
    """Write a model folder as training does, with random weights and a front of two preferences."""
    config = ModelConfig(items=ITEMS, dimension=16, max_length=10, item_scale=1.0)
    vocabulary = Vocabulary(pl.Series(range(1000, 1000 + ITEMS), dtype=pl.Int64))
    write_untrained_model(folder, config, vocabulary, version=version)
    pl.DataFrame(
        {
            "pi_order": [0.0, 0.5],
            "click_recall_20": [0.50, 0.49],
            "order_recall_20": [0.40, 0.42],
            "order_density": [0.02, 0.03],
            "dominated": [False, False],
        }
    ).write_parquet(folder / "grid.parquet")


def deploy_random_model(home: Path, *, version: str) -> None:
    """Make a random model the newest and live one of a shop, without gates."""
    shop = load_shop(home)
    write_random_model(shop.models / version, version=version)
    models.set_newest(shop, shop.models / version)
    with InProcessServer(shop.triton_repository) as server:
        deploy(shop.models / version, server, golden_pi=GRID, golden_k=K)


@pytest.fixture(scope="session")
def deployed_home(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The home of a shop with a deployed model and no tables yet; copy it before a change."""

    def make(home: Path) -> None:
        write_shop(home, Settings.model_validate(SETTINGS))
        write_raw_events(home / "raw")
        deploy_random_model(home, version="random")

    return made_once(tmp_path_factory, worker_id, "deployed_home", make)


@pytest.fixture(scope="session")
def redeployed_home(deployed_home: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """`deployed_home` after the deployment of a second model, version "other"."""

    def make(home: Path) -> None:
        shutil.copytree(deployed_home, home)
        deploy_random_model(home, version="other")

    return made_once(tmp_path_factory, worker_id, "redeployed_home", make)


def switch_models(shop: ShopInTest, home: Path) -> None:
    """Give a shop the models and the Triton repository of another home: what a deployment changes."""
    for folder in ("models", "triton"):
        shutil.rmtree(shop.home / folder)
        shutil.copytree(home / folder, shop.home / folder, symlinks=True)


@pytest.fixture(scope="session")
def ingested_home(deployed_home: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """`deployed_home` with three days in its event log."""

    def make(home: Path) -> None:
        with copied_shop(deployed_home, home) as shop:
            shop.ingest()

    return made_once(tmp_path_factory, worker_id, "ingested_home", make)


@dataclass(frozen=True)
class ShopInTest:
    """The home of a shop, and a Dagster instance."""

    home: Path
    instance: dg.DagsterInstance

    @property
    def lake(self) -> Lake:
        return load_shop(self.home).lake()

    def change(self, **sections: dict[str, Any]) -> None:
        """Change the settings; each section replaces the whole section of its name."""
        write_shop(self.home, Settings.model_validate({**load_shop(self.home).settings.model_dump(), **sections}))

    def run(
        self,
        job: str,
        partition: str | None = None,
        *,
        tags: dict[str, str] | None = None,
        ops: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Run a job to completion with newly built definitions, and return its result, also of a failed run."""
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        return (
            build_definitions(load_shop(self.home))
            .resolve_job_def(job)
            .execute_in_process(
                instance=self.instance,
                partition_key=partition,
                tags=tags,
                raise_on_error=False,
                run_config={**quiet, "ops": ops or {}},
                **options,
            )
        )

    def ingest(self) -> None:
        """Ingest all days in one run."""
        assert self.run("ingestion", tags=SPAN).success

    def score(self, day: dt.date, pi: str) -> Any:
        """Prepare the sessions of a day and score them at one preference; returns the result of the scoring."""
        assert self.run("session_preparation", str(day)).success
        return self.run("scoring", night_key(day, pi))


@contextmanager
def copied_shop(deployed_home: Path, home: Path) -> Iterator[ShopInTest]:
    """A copy of a shop, with an ephemeral Dagster instance."""
    shutil.copytree(deployed_home, home)
    with dg.DagsterInstance.ephemeral() as instance:
        yield ShopInTest(home, instance)


@pytest.fixture
def shop(ingested_home: Path, tmp_path: Path) -> Iterator[ShopInTest]:
    """A shop with three days in its event log."""
    with copied_shop(ingested_home, tmp_path / "shop") as shop:
        yield shop
