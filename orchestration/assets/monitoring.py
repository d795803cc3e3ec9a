"""How the live model does on a day's sessions, beside how it did when it was trained."""

import dataclasses
import datetime as dt

import dagster as dg
import numpy as np
import polars as pl

from multitron_core.events.ingestion import read_event_log
from multitron_core.front.decay import decay
from multitron_core.front.evaluation import front_table
from multitron_core.front.measurement import measure_front
from multitron_core.model.folder import load_model
from multitron_core.sessions.scoring import encode_sessions
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.training.config import training_config
from orchestration.runtime.executors import on_queue
from orchestration.runtime.metadata import as_markdown
from orchestration.runtime.partitions import Partitions
from orchestration.runtime.resources import ShopResource
from orchestration.runtime.retries import failures
from orchestration.shop import models
from orchestration.shop.deployed import live_model
from orchestration.shop.sources import session_gap

GROUP = "monitoring"
"""A group of its own: in `serving` it would close a circle with `scoring`, and the graph would not read as a way."""
MODEL_VERSION, DECAYED = "model version", "decayed"
"""Metadata that the sensor `decayed_model` reads."""

MEASURED_SESSIONS = 5_000
"""Enough for a recall to about one percent, few enough for a minute on a processor."""


def live_front_asset(partitions: Partitions) -> dg.AssetsDefinition:
    """The asset `live_front` over a shop's days."""

    @dg.asset(
        partitions_def=partitions.days,
        deps=["scoring_sessions", "deployed_model"],
        group_name=GROUP,
        kinds={"pytorch"},
        op_tags=on_queue("gpu"),
        check_specs=[
            dg.AssetCheckSpec(
                "front_holds",
                asset="live_front",
                description="The live model's front on the day's sessions has not lost more than max_decay of "
                "shop.toml of the one that it was trained with; beyond it the sensor `decayed_model` trains anew.",
            )
        ],
        description=(
            "The live model's front on the sessions of one day, which it has not seen when the day is new, beside the "
            "front that was measured when it was trained."
        ),
    )
    def live_front(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here = shop.load()
        day = dt.date.fromisoformat(context.partition_key)
        with failures(context):
            folder = models.folder_of(here, live_model(here).model_version)
            then = pl.read_parquet(folder / "grid.parquet")
            sessions, counted = encode_sessions(
                read_event_log(shop.lake(), last=day),
                Vocabulary.load(folder / "vocabulary.parquet"),
                until=day,
                days=1,
                session_gap=session_gap(here),
            )
            rows = np.flatnonzero(sessions.lengths > 1)  # a session of one click has nothing to be foretold
            chosen = np.sort(np.random.default_rng(0).permutation(rows)[:MEASURED_SESSIONS])
            figures = {"sessions": len(chosen), "lost": 0.0}
            decayed, now = False, then.clear()
            if len(chosen):
                config, preferences = training_config(folder), then["pi_order"].to_list()
                now = front_table(
                    measure_front(load_model(folder), sessions.select(chosen), preferences, config=config)
                )
                known = counted["clicks"] / counted["in"]["clicks"]
                found = decay(then, now, known_share=known, sessions=len(chosen))
                decayed, figures = found.beyond(here.settings.model.max_decay), dataclasses.asdict(found)
        return dg.MaterializeResult(
            metadata={
                MODEL_VERSION: models.model_version(folder),
                DECAYED: decayed,
                **{name.replace("_", " "): value for name, value in figures.items()},
                "front on this day": as_markdown(now),
                "front when trained": as_markdown(then),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="front_holds",
                    passed=not decayed,
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={"max decay": here.settings.model.max_decay, **figures},
                )
            ],
        )

    return live_front
