"""The work of the subcommands of `multitron`, but for `read` and `ui`; each function returns a `CommandResult`."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from tqdm import tqdm  # type: ignore[import-untyped]

from multitron_core.baselines.evaluation import evaluate_baselines
from multitron_core.errors import InputError, MultitronError
from multitron_core.front.change import front_change
from multitron_core.front.monotonicity import monotonicity
from multitron_core.front.summary import front_text
from multitron_core.preference.keys import pi_grid
from multitron_core.preference.operating_point import choose_operating_point, record_operating_point
from multitron_core.sessions.prepare import PreparedSessions
from multitron_core.training.presets import named
from multitron_core.utils.text_table import as_table
from orchestration.automation.status import status as status_of
from orchestration.cli.demo import run_date, run_demo
from orchestration.cli.read import CommandResult
from orchestration.cli.status import as_json, as_text
from orchestration.code_location import build_definitions
from orchestration.lifecycle.model import (
    deploy_model,
    measure_model,
    prepare_training,
    preset_of,
    report_on,
    train_model,
)
from orchestration.runtime.in_process_runs import run_job, scoring_listener, shared_server
from orchestration.runtime.instance import instance_of, prepare_instance
from orchestration.runtime.partitions import night_key
from orchestration.runtime.resources import ShopResource
from orchestration.shop import models
from orchestration.shop.home import Shop, load_shop
from orchestration.shop.night_sessions import prepared_sessions
from orchestration.shop.sources import events_fingerprint
from serving.deployment import rollback as make_live_again
from serving.scorer import ScoringProgress


def demo(home: Path | None, *, size: tuple[int, int], **options: Any) -> CommandResult:
    """`multitron demo`: progress and a summary on standard output; returns locations, metrics and publications."""
    logging.getLogger("serving").setLevel(logging.ERROR)  # its progress would interrupt the lines of the demo
    shop = run_demo(home, size=size, **options)
    folder = models.newest(shop)
    published = shop.lake().publications()
    return "", {
        "home": str(shop.home),
        "tables": {name: shop.lake().uri(name) for name in published["table_name"].unique().sort()},
        "published": published.to_dicts(),
        "model": str(folder),
        "grid": pl.read_parquet(folder / "grid.parquet").to_dicts(),
    }


def train(home: Path | None, *, preset: str | None, settings: Sequence[str], keep_sessions: bool) -> CommandResult:
    """`multitron train`: one row per epoch."""
    shop = load_shop(home)
    overrides = dict(_setting(each) for each in settings)
    if preset is not None:
        named(preset)
    model = shop.settings.model
    model = model.model_copy(
        update={
            "preset": preset or model.preset,
            "training": {**(model.training if preset is None else {}), **overrides},
        }
    )
    shop = shop.model_copy(update={"settings": shop.settings.model_copy(update={"model": model})})
    preset_of(shop.settings)  # refuses a wrong setting before sessions are prepared
    if not keep_sessions:
        _report_progress("preparing sessions")
        prepare_training(shop)
    folder = train_model(shop)
    epochs = pl.read_parquet(folder / "metrics.parquet")
    version = models.model_version(folder)
    text = f"{as_table(epochs)}\nmodel {version}: {folder}\nNext: multitron front, multitron report, multitron deploy"
    return text, {"model_version": version, "folder": str(folder), "epochs": epochs.to_dicts()}


def front(
    home: Path | None,
    *,
    model: str | None,
    points: int | None,
    objective: str,
    max_click_recall_loss: float,
    record: str | None,
) -> CommandResult:
    """`multitron front`: one row per preference, and the operating point."""
    shop = load_shop(home)
    folder = model_folder(shop, model)
    with _progress_bar("front", "batch") as progress:
        measured = measure_model(shop, folder, points=points, progress=progress)
    point = choose_operating_point(
        measured.table, objective, max_click_recall_loss, model_version=measured.model_version
    )
    text = front_text(measured.measurement, measured.table, measured.volume, point)
    recorded = None
    if record is not None:
        recorded = record_operating_point(point, folder, name=record, model_version=measured.model_version)
    text += f"\nrecorded as {record}: {recorded}" if recorded else ""
    return f"{text}\npicture: {folder / 'front.png'}", {
        "model_version": measured.model_version,
        "rows": measured.table.to_dicts(),
        "monotony": monotonicity(measured.table).to_dicts(),
        "change": front_change(measured.measurement).to_dicts(),
        "hypervolume": dataclasses.asdict(measured.volume),
        "operating_point": dataclasses.asdict(point),
        "picture": str(folder / "front.png"),
    }


def report(
    home: Path | None, *, model: str | None, out: Path | None, objective: str, max_click_recall_loss: float
) -> CommandResult:
    """`multitron report`: the path of the HTML file."""
    shop = load_shop(home)
    path = report_on(
        shop,
        model_folder(shop, model),
        out,
        objective=objective,
        max_click_recall_loss=max_click_recall_loss,
        progress=_report_progress,
    )
    return f"{path}\nOpen it in any browser.", {"report": str(path)}


def baselines(home: Path | None) -> CommandResult:
    """`multitron baselines`: one row per baseline."""
    prepared = PreparedSessions.load(load_shop(home).training_sessions)
    _report_progress("measuring the baselines")
    table = evaluate_baselines(prepared.train, prepared.test)
    return as_table(table), table.to_dicts()


def deploy(home: Path | None, *, model: str | None) -> CommandResult:
    """`multitron deploy`: the live version after it."""
    shop = load_shop(home)
    folder = model_folder(shop, model)
    with ShopResource(home=str(shop.home)).server() as server:
        _report_progress("exporting, loading, scoring golden sessions, comparing")
        deployment = deploy_model(shop, folder, server)
        if deployment is None:
            live = server.live_model()
            return f"model {live.model_version} is already live (version {live.version})", dataclasses.asdict(live)
    text = (
        f"version {deployment.version} is live (model {deployment.model_version}); {deployment.golden_lists} golden "
        f"lists agree; previous version: {deployment.previous_version or 'none'}"
    )
    return text, dataclasses.asdict(deployment)


def rollback(home: Path | None, *, version: int | None) -> CommandResult:
    """`multitron rollback`: the live version after it."""
    shop = load_shop(home)
    with ShopResource(home=str(shop.home)).server() as server:
        deployment = make_live_again(version, server)
    text = (
        f"version {deployment.version} is live again (model {deployment.model_version})\n"
        "Released lists are unchanged; `multitron score` replaces the lists of a night."
    )
    return text, dataclasses.asdict(deployment)


def score(home: Path | None, *, date: str | None, until: str | None, preferences: Sequence[str]) -> CommandResult:
    """`multitron score`: the released partitions, and the error of each run that failed."""
    shop = load_shop(home)
    os.environ.update(prepare_instance(shop))
    requested = pi_grid(preferences) if preferences else shop.settings.preferences
    unknown = sorted(set(requested) - set(shop.settings.preferences))
    if unknown:
        raise InputError(
            "not a preference of this shop",
            where=shop.home / "shop.toml",
            found=unknown,
            hint=f"use {', '.join(shop.settings.preferences)}, or add it to pi of [scoring]",
        )
    nights = _nights(date, until) if date else [run_date(shop)]
    runs = [(night, pi) for night in nights for pi in requested]
    definitions = build_definitions(shop)
    failed: dict[str, str] = {}
    with dg.DagsterInstance.get() as instance, shared_server(shop), _scoring_bar(len(runs)) as show_run:
        prepared: set[dt.date] = set()
        for night, pi in runs:
            show_run(f"{night} pi {pi}")
            try:
                if night not in prepared:
                    if prepared_sessions(shop, night, events_fingerprint(shop.lake(), night)) is None:
                        run_job(
                            definitions, instance, "session_preparation", started_by="shell", partition_key=str(night)
                        )
                    prepared.add(night)
                run_job(definitions, instance, "scoring", started_by="shell", partition_key=night_key(night, pi))
            except MultitronError as error:
                failed[f"{night} pi {pi}"] = str(error)
    publications = shop.lake().publications("recommendations")
    released = publications.filter(pl.col("run_date").is_in(nights), pl.col("pi").is_in(list(requested))).sort(
        "run_date", "pi"
    )
    shown = released.select("run_date", "pi", "lists", "rows", "model_version", "delta_version", "published_at")
    lines = [as_table(shown), *[f"failed: {night}: {error}" for night, error in failed.items()]]
    return "\n".join(lines), {"released": shown.to_dicts(), "failed": failed}


def status(home: Path | None, *, nights: int, check: bool) -> CommandResult:
    """`multitron status`: the state of the last nights; `failed` is true where --check ends with status 1."""
    shop = load_shop(home)
    with instance_of(shop) as instance:
        found = status_of(shop, instance, nights=nights)
    return as_text(found), {**json.loads(as_json(found)), "failed": check and bool(found.late or found.standstills)}


def model_folder(shop: Shop, model: str | None) -> Path:
    """The folder of a model by its version or path; the newest model for None."""
    if model is None:
        return models.newest(shop)
    return Path(model) if (Path(model) / "config.json").exists() else models.folder_of(shop, model)


def _setting(text: str) -> tuple[str, Any]:
    """The name and value of NAME=VALUE; the value is parsed as JSON if it is JSON, else it is text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError("not a setting", where="--set", found=text, hint="use NAME=VALUE, for example epochs=3")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _nights(first: str, last: str | None) -> list[dt.date]:
    """The days from `first` to `last`, both included; only `first` if `last` is None."""
    try:
        begin, end = dt.date.fromisoformat(first), dt.date.fromisoformat(last or first)
    except ValueError as error:
        raise InputError("not a date", found=[first, last], hint="use the form 2026-01-08") from error
    if end < begin:
        raise InputError("the last night is before the first", found=[first, last], hint="swap --date and --until")
    return [begin + dt.timedelta(days=days) for days in range((end - begin).days + 1)]


def _report_progress(activity: str) -> None:
    print(f"{activity} ...", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _progress_bar(name: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, only on a terminal; yields its update function (done, total)."""
    with tqdm(desc=name, unit=unit, disable=None, file=sys.stderr, mininterval=0.3) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update


@contextlib.contextmanager
def _scoring_bar(runs: int) -> Iterator[Callable[[str], None]]:
    """A progress bar of the lists of one run; yields a function that starts it anew for the next run, by its name."""
    with tqdm(unit="list", disable=None, file=sys.stderr, mininterval=0.3) as bar:
        started = 0

        def show_run(run: str) -> None:
            nonlocal started
            started += 1
            bar.reset()
            bar.set_description(f"{run} ({started} of {runs})")

        def update(progress: ScoringProgress) -> None:
            bar.total = progress.total
            bar.update(progress.sessions - bar.n)

        token = scoring_listener.set(update)
        try:
            yield show_run
        finally:
            scoring_listener.reset(token)
