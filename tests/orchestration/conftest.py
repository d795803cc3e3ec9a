"""A small shop with a deployed model of random weights, scored in process: real runs of the real jobs, in seconds."""

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

DAYS = [dt.date(2026, 3, day) for day in (1, 2, 3)]
SESSIONS = (60, 25, 60)  # the second day has lost more than half of them
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

logging.getLogger("torch.__trace").propagate = False  # pytest would keep every line of an export


def write_raw_events(folder: Path) -> None:
    """A file a day: session s clicks three items."""
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
        os.utime(file, (0, 0))  # long ago: no longer on its way


def write_random_model(folder: Path, *, version: str = "random") -> None:
    """A model folder as training writes it, with random weights and what it measured at three preferences."""
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


@pytest.fixture(scope="session")
def deployed_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a shop whose model is deployed and whose tables are not there yet."""
    home = tmp_path_factory.mktemp("deployed") / "shop"
    write_shop(home, Settings.model_validate(SETTINGS))
    write_raw_events(home / "raw")
    shop = load_shop(home)
    write_random_model(shop.models / "random")
    models.set_newest(shop, shop.models / "random")
    with InProcessServer(shop.triton_repository) as server:
        deploy(shop.models / "random", server, golden_pi=GRID, golden_k=K)
    return home


@dataclass(frozen=True)
class ShopInTest:
    """A shop's home and a Dagster instance of its own."""

    home: Path
    instance: dg.DagsterInstance

    @property
    def lake(self) -> Lake:
        return load_shop(self.home).lake()

    def change(self, **sections: dict[str, Any]) -> None:
        """Write other settings; each section replaces the one of its name."""
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
        """Run a job to its end, and give its result whether it failed or not; definitions are loaded anew."""
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
        span = {"dagster/asset_partition_range_start": str(DAYS[0]), "dagster/asset_partition_range_end": str(DAYS[-1])}
        assert self.run("ingestion", tags=span).success

    def score(self, day: dt.date, pi: str) -> Any:
        """A night at one preference, from the event log on."""
        assert self.run("session_preparation", str(day)).success
        return self.run("scoring", night_key(day, pi))


@contextmanager
def copied_shop(deployed_home: Path, home: Path) -> Iterator[ShopInTest]:
    """A copy of the deployed shop, with an instance that ends with it."""
    shutil.copytree(deployed_home, home)
    with dg.DagsterInstance.ephemeral() as instance:
        yield ShopInTest(home, instance)


@pytest.fixture
def shop(deployed_home: Path, tmp_path: Path) -> Iterator[ShopInTest]:
    """A shop of its own, with three days in its event log."""
    with copied_shop(deployed_home, tmp_path / "shop") as shop:
        shop.ingest()
        yield shop
