"""What the assets of training and serving do, without Dagster: the shell command calls the same functions.

Each takes a shop and gives what it made; assets turn that into metadata, the shell into lines of text or JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from multitron_core.baselines.counts import co_visitation, popularity
from multitron_core.baselines.evaluation import evaluate_baselines
from multitron_core.errors import InputError
from multitron_core.events.ingestion import read_event_log
from multitron_core.front.evaluation import front_table, front_volume
from multitron_core.front.files import save_front
from multitron_core.front.measurement import FrontMeasurement, measure_front
from multitron_core.front.volume import FrontVolume
from multitron_core.model.folder import load_model
from multitron_core.preference.spacing import spaced_preferences
from multitron_core.report import write_report
from multitron_core.sessions.prepare import PreparedSessions, prepare_sessions
from multitron_core.training import presets
from multitron_core.training.config import training_config
from multitron_core.training.fingerprint import fingerprint
from multitron_core.training.presets import Preset
from multitron_core.training.trainer import train
from orchestration.lifecycle.torchrun import train_in_processes
from orchestration.shop import models
from orchestration.shop.home import Shop, lake_of
from orchestration.shop.settings import Settings
from orchestration.shop.sources import session_gap
from serving.deployment import Deployment, deploy
from serving.gates import better_than, no_worse_than_live
from serving.interface import LiveModel, Server
from serving.repository import MODEL_NAME


def preset_of(settings: Settings) -> Preset:
    """The preset of a shop, with what its settings change."""
    return presets.named(settings.model.preset).changed(training=settings.model.training)


def prepare_training(shop: Shop) -> PreparedSessions:
    """Sessions of all ingested days, split into train and test, kept in the shop's home."""
    prepared = prepare_sessions(
        read_event_log(lake_of(shop)),
        shop.settings.source.format,
        split_days=shop.settings.sessions.split_days,
        session_gap=session_gap(shop),
    )
    prepared.save(shop.training_sessions)
    return prepared


def train_model(shop: Shop, *, on_epoch: Callable[[dict[str, float]], None] | None = None) -> Path:
    """Train the shop's preset on its prepared sessions; the model becomes the newest one.

    Args:
        shop: whose.
        on_epoch: called with each epoch's row of the metrics.

    Returns:
        The model folder; the one that is there where the same was trained before.
    """
    prepared = PreparedSessions.load(shop.training_sessions)
    settings = preset_of(shop.settings)
    folder = shop.models / f"{settings.name}-{fingerprint(prepared, settings)}"
    device, processes = shop.settings.model.device, shop.settings.model.processes
    if processes == 1:
        train(prepared, settings, folder, device=device, on_epoch=on_epoch)
    else:
        train_in_processes(
            shop.training_sessions, settings, folder, processes=processes, device=device, on_epoch=on_epoch
        )
    models.set_newest(shop, folder)
    return folder


@dataclass(frozen=True, eq=False)
class MeasuredFront:
    """The front of a model.

    Args:
        folder: the model's, which now holds `front.parquet`, `front.png` and `grid.parquet`.
        model_version: the model's.
        measurement: what the table sums up.
        table: a row a preference, see `front.front_table`.
        grid: the same at the preferences that the shop scores.
        volume: both hypervolumes, with the declared reference.
        asked_recall: what `baseline_recall` gives: a model that is no better is not deployed.
        delta_version: of the table `fronts`.
    """

    folder: Path
    model_version: str
    measurement: FrontMeasurement
    table: pl.DataFrame
    grid: pl.DataFrame
    volume: FrontVolume
    asked_recall: float
    delta_version: int


def measure_model(
    shop: Shop, folder: Path, *, points: int | None = None, progress: Callable[[int, int], None] | None = None
) -> MeasuredFront:
    """Measure a model's front on the test sessions; keep it with the model and in the table `fronts`.

    Args:
        shop: whose.
        folder: the model's.
        points: preferences of the front; by default the shop's `front_points`.
        progress: called with the batches done and their number.
    """
    version = models.model_version(folder)
    trained, prepared = load_model(folder), PreparedSessions.load(shop.training_sessions)
    config = training_config(folder)
    points = shop.settings.model.front_points if points is None else points
    measured = measure_front(
        trained, prepared, spaced_preferences(points, beta=config.data.beta), config=config, progress=progress
    )
    table = front_table(measured)
    volume = front_volume(measured)
    save_front(table, volume, folder)
    grid = front_table(measure_front(trained, prepared, [float(pi) for pi in shop.settings.preferences], config=config))
    grid.write_parquet(folder / "grid.parquet")
    committed = lake_of(shop).replace_rows("fronts", table, key={"model_version": version})
    return MeasuredFront(
        folder,
        version,
        measured,
        table,
        grid,
        volume,
        baseline_recall(prepared, shop.settings.model.gate_baseline),
        committed.delta_version,
    )


def report_on(shop: Shop, folder: Path, out: Path | None = None, **options: Any) -> Path:
    """Write the report of a model, by default into its folder; `options` as `multitron_core.report.write_report`."""
    return write_report(folder, PreparedSessions.load(shop.training_sessions), out, **options)


def deploy_model(shop: Shop, folder: Path, server: Server) -> Deployment | None:
    """Deploy a model behind its gates; None where it is live already.

    Raises:
        InputError: a gate or a golden answer refuses it; what was live stays live.
    """
    live = live_of(server)
    if live is not None and live.model_version == models.model_version(folder):
        return None
    prepared = PreparedSessions.load(shop.training_sessions)
    return deploy(
        folder,
        server,
        golden_sessions=prepared.test,
        golden_pi=shop.settings.preferences,
        gates=[
            better_than(
                {"click_recall_20": baseline_recall(prepared, shop.settings.model.gate_baseline)},
                name=shop.settings.model.gate_baseline,
            ),
            no_worse_than_live(tolerance=shop.settings.model.gate_tolerance),
        ],
        backend=shop.settings.triton.backend,
        settings=shop.settings.triton.instance_settings(),
    )


def baseline_recall(prepared: PreparedSessions, name: str) -> float:
    """Click recall@20 of a table of counts on the test sessions, the steps of the front: what a model must beat.

    Args:
        prepared: the sessions that the model was trained and measured on.
        name: "co-visitation" (of the last five items, the session's own first) or "popularity".
    """
    made = co_visitation(prepared.train) if name == "co-visitation" else popularity(prepared.train)
    measured = evaluate_baselines(prepared.train, prepared.test, baselines={name: made})
    return float(measured["click_recall_20"].item())


def live_of(server: Server) -> LiveModel | None:
    """What the server answers with now; None when nothing is deployed there."""
    try:
        return server.live_model(model_name=MODEL_NAME)
    except InputError:
        return None
