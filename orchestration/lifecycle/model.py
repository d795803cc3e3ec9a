"""A model, step by step: sessions, training, front, report, deployment, and its front on a new day.

Each function takes a shop and returns what it made. Assets turn the result into metadata; the command line turns it
into text or JSON. None of them needs Dagster.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from multitron_core.baselines.counts import co_visitation, popularity
from multitron_core.baselines.evaluation import evaluate_baselines
from multitron_core.errors import InputError
from multitron_core.events.ingestion import read_event_log
from multitron_core.front.decay import Decay, decay
from multitron_core.front.evaluation import front_table, front_volume
from multitron_core.front.files import save_front
from multitron_core.front.measurement import FrontMeasurement, measure_front
from multitron_core.front.volume import FrontVolume
from multitron_core.model.folder import load_model
from multitron_core.preference.spacing import spaced_preferences
from multitron_core.sessions.prepare import PreparedSessions, prepare_sessions
from multitron_core.sessions.scoring import encode_sessions
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.training import presets
from multitron_core.training.config import training_config
from multitron_core.training.fingerprint import fingerprint
from multitron_core.training.presets import Preset
from multitron_core.training.trainer import train
from orchestration.lifecycle.torchrun import train_in_processes
from orchestration.shop import models
from orchestration.shop.deployed import live_model
from orchestration.shop.home import Shop
from orchestration.shop.settings import Settings
from orchestration.shop.sources import session_gap
from serving.deployment import Deployment, deploy
from serving.gates import better_than, no_worse_than_live
from serving.interface import LiveModel, Server
from serving.repository import MODEL_NAME

MEASURED_SESSIONS = 5_000
"""Sessions of a day that are measured at most: a recall to about 1 %, in about a minute on a CPU."""


def preset_of(settings: Settings) -> Preset:
    """The training preset of a shop, with the settings of [model.training] applied."""
    return presets.named(settings.model.preset).changed(training=settings.model.training)


def prepare_training(shop: Shop) -> PreparedSessions:
    """Prepare sessions of all ingested days, split into train and test, and save them in the shop's home."""
    prepared = prepare_sessions(
        read_event_log(shop.lake()),
        shop.settings.source.format,
        split_days=shop.settings.sessions.split_days,
        session_gap=session_gap(shop),
    )
    prepared.save(shop.training_sessions)
    return prepared


def train_model(shop: Shop, *, on_epoch: Callable[[dict[str, float]], None] | None = None) -> Path:
    """Train the shop's preset on its prepared sessions, and record the model as the newest.

    Args:
        shop: the shop; [model] of its settings gives device and number of processes.
        on_epoch: called with the row of metrics of each epoch.

    Returns:
        The model folder. If the same sessions were trained with the same settings before, it is that folder.
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
    """The front of a model, measured on the test sessions.

    Args:
        folder: the model folder, which now contains `front.parquet`, `front.png` and `grid.parquet`.
        model_version: the version of the model.
        measurement: per-session sums, which the table summarises.
        table: one row per preference, see `multitron_core.front.front_table`.
        grid: the same, at the preferences that the shop scores.
        volume: normalised and raw hypervolume, with the reference point.
        required_recall: click recall@20 of the baseline; a model that does not exceed it is not deployed.
        delta_version: of the table `fronts`.
    """

    folder: Path
    model_version: str
    measurement: FrontMeasurement
    table: pl.DataFrame
    grid: pl.DataFrame
    volume: FrontVolume
    required_recall: float
    delta_version: int


def measure_model(
    shop: Shop, folder: Path, *, points: int | None = None, progress: Callable[[int, int], None] | None = None
) -> MeasuredFront:
    """Measure a model's front on the test sessions; save it in the model folder and in the table `fronts`.

    Args:
        shop: the shop.
        folder: the model folder.
        points: number of preferences of the front; by default the shop's `front_points`.
        progress: called with the number of batches that are done and the number of all batches.
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
    committed = shop.lake().replace_rows("fronts", table, key={"model_version": version})
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
    """Write the report of a model.

    Args:
        shop: the shop; its test sessions are used.
        folder: the model folder.
        out: the HTML file; by default `report.html` in the model folder.
        options: further arguments of `multitron_core.report.write_report`.

    Returns:
        The path of the HTML file.
    """
    from multitron_core.report import write_report  # loads Jinja2, which only this function needs

    return write_report(folder, PreparedSessions.load(shop.training_sessions), out, **options)


def deploy_model(shop: Shop, folder: Path, server: Server) -> Deployment | None:
    """Deploy a model if it passes its gates.

    The gates: the click recall@20 of the baseline must be exceeded, and the front must not be worse than the live
    model's by more than `gate_tolerance`.

    Args:
        shop: the shop; [model] and [triton] of its settings give gates and instances.
        folder: the model folder.
        server: where the model is deployed.

    Returns:
        None if the model is live already.

    Raises:
        InputError: a gate or a golden answer refuses the model; the live version stays live.
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
    """Click recall@20 of a count baseline, at the steps of the test sessions that the front is measured at.

    Args:
        prepared: the sessions that the model was trained and measured on.
        name: "co-visitation" (of the last five items, items of the session first) or "popularity".
    """
    baseline = co_visitation(prepared.train) if name == "co-visitation" else popularity(prepared.train)
    measured = evaluate_baselines(prepared.train, prepared.test, baselines={name: baseline})
    return float(measured["click_recall_20"].item())


def live_of(server: Server) -> LiveModel | None:
    """The version that the server serves; None if no model is deployed there."""
    try:
        return server.live_model(model_name=MODEL_NAME)
    except InputError:
        return None


@dataclass(frozen=True, eq=False)
class LiveFront:
    """The front of the live model on the sessions of one day, and its front at training time.

    Args:
        model_version: the live model.
        trained: its front at training time, one row per preference of the grid, see `front.front_table`.
        measured: its front on the day, the same columns; no rows if the day has no session of two clicks or more.
        sessions: number of sessions that were measured, at most `MEASURED_SESSIONS`.
        decay: the comparison of the two fronts; None without measured sessions.
        decayed: whether the front lost more than `max_decay` of the shop's settings.
    """

    model_version: str
    trained: pl.DataFrame
    measured: pl.DataFrame
    sessions: int
    decay: Decay | None
    decayed: bool


def measure_live_front(shop: Shop, day: dt.date) -> LiveFront:
    """Measure the live model's front on the sessions of one day, which are new to it if the day is new.

    Raises:
        InputError: no model is deployed, or its folder is missing.
    """
    folder = models.folder_of(shop, live_model(shop).model_version)
    version, trained = models.model_version(folder), pl.read_parquet(folder / "grid.parquet")
    sessions, statistics = encode_sessions(
        read_event_log(shop.lake(), last=day),
        Vocabulary.load(folder / "vocabulary.parquet"),
        until=day,
        days=1,
        session_gap=session_gap(shop),
    )
    rows = np.flatnonzero(sessions.lengths > 1)  # a session of one click has no next click to predict
    chosen = np.sort(np.random.default_rng(0).permutation(rows)[:MEASURED_SESSIONS])
    if not len(chosen):
        return LiveFront(version, trained, trained.clear(), sessions=0, decay=None, decayed=False)
    measured = front_table(
        measure_front(
            load_model(folder),
            sessions.select(chosen),
            trained["pi_order"].to_list(),
            config=training_config(folder),
        )
    )
    known_share = statistics["clicks"] / statistics["in"]["clicks"]
    found = decay(trained, measured, known_share=known_share, sessions=len(chosen))
    return LiveFront(
        version,
        trained,
        measured,
        sessions=len(chosen),
        decay=found,
        decayed=found.beyond(shop.settings.model.max_decay),
    )
