"""What the subcommands of `multitron` do, but for `read`: each returns an `Answer`."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
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
from orchestration.cli.read import Answer
from orchestration.cli.status import as_json, as_text
from orchestration.code_location import build_definitions
from orchestration.lifecycle import model as work
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


def demo(home: Path, *, size: tuple[int, int], **options: Any) -> Answer:
    """`multitron demo`."""
    run_demo(home, size=size, **options)
    shop = load_shop(home)
    folder = models.newest(shop)
    published = shop.lake().publications()
    return "", {
        "home": str(shop.home),
        "tables": {name: shop.lake().uri(name) for name in published["table_name"].unique().sort()},
        "published": published.to_dicts(),
        "model": str(folder),
        "grid": pl.read_parquet(folder / "grid.parquet").to_dicts(),
    }


def train(home: Path, *, preset: str | None, settings: Sequence[str], keep_sessions: bool) -> Answer:
    """`multitron train`."""
    shop = load_shop(home)
    changed = dict(_setting(each) for each in settings)
    if preset is not None:
        named(preset)
    model = shop.settings.model
    model = model.model_copy(
        update={"preset": preset or model.preset, "training": {**(model.training if preset is None else {}), **changed}}
    )
    shop = shop.model_copy(update={"settings": shop.settings.model_copy(update={"model": model})})
    work.preset_of(shop.settings)  # a wrong setting is told before sessions are prepared
    if not keep_sessions:
        _say("preparing sessions")
        work.prepare_training(shop)
    folder = work.train_model(shop)
    epochs = pl.read_parquet(folder / "metrics.parquet")
    version = models.model_version(folder)
    text = f"{as_table(epochs)}\nmodel {version}: {folder}\nNext: multitron front, multitron report, multitron deploy"
    return text, {"model_version": version, "folder": str(folder), "epochs": epochs.to_dicts()}


def front(
    home: Path,
    *,
    model: str | None,
    points: int | None,
    objective: str,
    max_click_recall_loss: float,
    record: str | None,
) -> Answer:
    """`multitron front`."""
    shop = load_shop(home)
    folder = model_folder(shop, model)
    with _bar("front", "batch") as told:
        measured = work.measure_model(shop, folder, points=points, progress=told)
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


def report(home: Path, *, model: str | None, out: Path | None, objective: str, max_click_recall_loss: float) -> Answer:
    """`multitron report`."""
    shop = load_shop(home)
    path = work.report_on(
        shop,
        model_folder(shop, model),
        out,
        objective=objective,
        max_click_recall_loss=max_click_recall_loss,
        progress=_say,
    )
    return f"{path}\nOpen it in any browser.", {"report": str(path)}


def baselines(home: Path) -> Answer:
    """`multitron baselines`."""
    prepared = PreparedSessions.load(load_shop(home).training_sessions)
    _say("measuring the baselines")
    table = evaluate_baselines(prepared.train, prepared.test)
    return as_table(table), table.to_dicts()


def deploy(home: Path, *, model: str | None) -> Answer:
    """`multitron deploy`."""
    shop = load_shop(home)
    folder = model_folder(shop, model)
    with ShopResource(home=str(shop.home)).server() as server:
        _say("exporting, loading, asking golden questions, comparing")
        deployment = work.deploy_model(shop, folder, server)
        if deployment is None:
            live = server.live_model()
            return f"model {live.model_version} is live already (version {live.version})", dataclasses.asdict(live)
    text = (
        f"version {deployment.version} is live (model {deployment.model_version}); {deployment.golden_lists} golden "
        f"lists agree; before it: {deployment.previous_version or 'nothing'}"
    )
    return text, dataclasses.asdict(deployment)


def rollback(home: Path, *, version: int | None) -> Answer:
    """`multitron rollback`."""
    shop = load_shop(home)
    with ShopResource(home=str(shop.home)).server() as server:
        deployment = make_live_again(version, server)
    text = (
        f"version {deployment.version} is live again (model {deployment.model_version})\n"
        "A night scored before keeps its lists; score it again to replace them."
    )
    return text, dataclasses.asdict(deployment)


def score(home: Path, *, date: str | None, until: str | None, preferences: Sequence[str]) -> Answer:
    """`multitron score`."""
    shop = load_shop(home)
    os.environ.update(prepare_instance(shop))
    wanted = pi_grid(preferences) if preferences else shop.settings.preferences
    unknown = sorted(set(wanted) - set(shop.settings.preferences))
    if unknown:
        raise InputError(
            "not among the preferences of this shop",
            where=shop.home / "shop.toml",
            found=unknown,
            hint=f"the preferences are {', '.join(shop.settings.preferences)}; add it to pi of [scoring]",
        )
    nights = _nights(date, until) if date else [run_date(shop)]
    runs = [(night, pi) for night in nights for pi in wanted]
    definitions = build_definitions(shop)
    failed: dict[str, str] = {}
    with dg.DagsterInstance.get() as instance, shared_server(shop), _scoring_bar(len(runs)) as at:
        prepared: set[dt.date] = set()
        for night, pi in runs:
            at(f"{night} pi {pi}")
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
    there = shop.lake().publications("recommendations")
    released = there.filter(pl.col("run_date").is_in(nights), pl.col("pi").is_in(list(wanted))).sort("run_date", "pi")
    shown = released.select("run_date", "pi", "lists", "rows", "model_version", "delta_version", "published_at")
    lines = [as_table(shown), *[f"failed: {night}: {error}" for night, error in failed.items()]]
    return "\n".join(lines), {"released": shown.to_dicts(), "failed": failed}


def status(home: Path, *, nights: int, check: bool) -> Answer:
    """`multitron status`."""
    shop = load_shop(home)
    with instance_of(shop) as instance:
        told = status_of(shop, instance, nights=nights)
    return as_text(told), {**json.loads(as_json(told)), "failed": check and bool(told.late or told.standstills)}


def model_folder(shop: Shop, model: str | None) -> Path:
    """The folder of a model that is named by version or path; the newest one for None."""
    if model is None:
        return models.newest(shop)
    return Path(model) if (Path(model) / "config.json").exists() else models.folder_of(shop, model)


def _setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE; the value is JSON where it can be read so, else text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError("not a setting", where="--set", found=text, hint="write NAME=VALUE, for example epochs=3")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _nights(first: str, last: str | None) -> list[dt.date]:
    try:
        begin, end = dt.date.fromisoformat(first), dt.date.fromisoformat(last or first)
    except ValueError as error:
        raise InputError("not a date", found=[first, last], hint="write dates as 2026-01-08") from error
    if end < begin:
        raise InputError("the last night is before the first", found=[first, last], hint="exchange --date and --until")
    return [begin + dt.timedelta(days=days) for days in range((end - begin).days + 1)]


def _say(doing: str) -> None:
    print(f"{doing} ...", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _bar(name: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error that is told (done, total); on a terminal only."""
    with tqdm(desc=name, unit=unit, disable=None, file=sys.stderr, mininterval=0.3) as bar:

        def told(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield told


@contextlib.contextmanager
def _scoring_bar(runs: int) -> Iterator[Callable[[str], None]]:
    """A bar of sessions for each run, which is told when one begins; rate and time left come from the scorer."""
    with tqdm(unit="list", disable=None, file=sys.stderr, mininterval=0.3) as bar:
        begun = 0

        def begin(run: str) -> None:
            nonlocal begun
            begun += 1
            bar.reset()
            bar.set_description(f"{run} ({begun} of {runs})")

        def heard(progress: ScoringProgress) -> None:
            bar.total = progress.total
            bar.update(progress.sessions - bar.n)

        token = scoring_listener.set(heard)
        try:
            yield begin
        finally:
            scoring_listener.reset(token)
