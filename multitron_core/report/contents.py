"""What a report shows, measured or read from the model folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from multitron_core.baselines.evaluation import against_baselines, evaluate_baselines
from multitron_core.errors import InputError
from multitron_core.front.evaluation import front_table, front_volume
from multitron_core.front.files import VOLUME_FILE, kept_volume, save_front
from multitron_core.front.measurement import measure_front
from multitron_core.front.volume import FrontVolume
from multitron_core.model.folder import load_model
from multitron_core.preference.operating_point import OperatingPoint, choose_operating_point
from multitron_core.preference.spacing import spaced_preferences
from multitron_core.report.measurements import Example, ablation, examples
from multitron_core.sessions.prepare import PreparedSessions
from multitron_core.training.config import training_config

POINTS = 26
OBJECTIVES = ("order_density", "order_recall_20", "recall_x_density", "order_loss")
ALLOWANCES = (0.005, 0.01, 0.02, 0.05)


@dataclass(frozen=True, eq=False)
class Contents:
    """Everything that a report shows.

    Args:
        described: the model folder's `config.json`.
        prepared: the sessions that it was trained and measured on.
        front: what `front_table` gives.
        volume: of the front.
        baselines: what `evaluate_baselines` gives for the same steps.
        epochs: the model folder's `metrics.parquet`.
        point: the operating point that was chosen.
        choices: what other constraints would choose: `objective`, `max_click_recall_loss`, `pi`, `value`, `cost`.
        ablation: what `measurements.ablation` gives at the point.
        examples: sessions with their lists.
    """

    described: dict[str, Any]
    prepared: PreparedSessions
    front: pl.DataFrame
    volume: FrontVolume
    baselines: pl.DataFrame
    epochs: pl.DataFrame
    point: OperatingPoint
    choices: pl.DataFrame
    ablation: pl.DataFrame
    examples: list[Example]

    @property
    def against_baselines(self) -> pl.DataFrame:
        """The best of the front beside the best baseline, metric by metric."""
        return against_baselines(self.front, self.baselines)


def measure(
    model_dir: Path | str,
    prepared: PreparedSessions,
    *,
    objective: str = "order_density",
    max_click_recall_loss: float = 0.02,
    progress: Callable[[str], None] = lambda doing: None,
) -> Contents:
    """Measure what a report shows; a front and baselines that stand in the model folder are read, not measured again.

    Args:
        model_dir: a model folder.
        prepared: the sessions that it was trained on.
        objective, max_click_recall_loss: how the operating point is chosen, see `choose_operating_point`.
        progress: told what is being done.

    Raises:
        InputError: not a model folder, or sessions of another vocabulary.
    """
    folder = Path(model_dir)
    model = load_model(folder)
    described = json.loads((folder / "config.json").read_text())
    if prepared.vocabulary.hash != described.get("vocabulary_hash"):
        raise InputError(
            "the sessions were encoded with another vocabulary than the model's",
            where=folder,
            found=prepared.vocabulary.hash,
            hint="report on the sessions that were prepared for this model",
        )
    if model.config.objectives != ("click", "order"):
        raise InputError(
            "the report shows models of clicks and orders",
            where=folder,
            found=model.config.objectives,
            hint="see its front with python -m multitron_core.front --save",
        )
    config = training_config(folder)
    if not ((folder / "front.parquet").exists() and (folder / VOLUME_FILE).exists()):
        progress("measuring the front")
        measured = measure_front(model, prepared, spaced_preferences(POINTS, beta=config.beta), config=config)
        save_front(front_table(measured), front_volume(measured), folder)
    front = pl.read_parquet(folder / "front.parquet")
    volume = kept_volume(folder)
    baselines_file = folder / "baselines.parquet"
    if not baselines_file.exists():
        progress("measuring the baselines")
        measured_baselines = evaluate_baselines(prepared.train, prepared.test, max_length=model.config.max_length)
        beside = baselines_file.with_suffix(f".{os.getpid()}")
        measured_baselines.write_parquet(beside)
        os.replace(beside, baselines_file)
    point = choose_operating_point(front, objective, max_click_recall_loss, model_version=described["version"])
    progress("asking the model with something kept from it")
    ablated = ablation(model, prepared.test, point.pi_key)
    progress("choosing example sessions")
    return Contents(
        described=described,
        prepared=prepared,
        front=front,
        volume=volume,
        baselines=pl.read_parquet(baselines_file),
        epochs=pl.read_parquet(folder / "metrics.parquet"),
        point=point,
        choices=_choices(front),
        ablation=ablated,
        examples=examples(model, prepared.test, prepared.vocabulary, shown_preferences(point.pi_key, front)),
    )


def shown_preferences(chosen: str, front: pl.DataFrame) -> tuple[str, str, str]:
    """The three preferences whose lists stand side by side: clicks alone, the chosen one, orders alone.

    Nearly orders alone where nothing trained the ranks at "1.00"; "0.50" where the chosen one is an end.
    """
    last = "1.00" if front["ranks_trained"].all() else "0.95"
    return ("0.00", chosen if "0.00" < chosen < last else "0.50", last)


def _choices(front: pl.DataFrame) -> pl.DataFrame:
    """What other objectives and allowances would choose."""
    rows = []
    for objective in OBJECTIVES:
        if objective not in front.columns or front[objective].is_null().all():
            continue
        for allowed in ALLOWANCES:
            point = choose_operating_point(front, objective, allowed)
            rows.append(
                {
                    "objective": objective,
                    "max_click_recall_loss": allowed,
                    "pi": point.pi_key,
                    "value": point.value,
                    "cost": point.click_recall_loss,
                }
            )
    return pl.DataFrame(rows)
