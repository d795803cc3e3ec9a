"""Contents of a report: measured, or read from the model folder."""

from __future__ import annotations

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
from multitron_core.model.description import ModelDescription
from multitron_core.model.folder import load_model
from multitron_core.preference.operating_point import OperatingPoint, choose_operating_point
from multitron_core.preference.spacing import spaced_preferences
from multitron_core.report.measurements import Example, ablation, examples
from multitron_core.sessions.prepare import PreparedSessions
from multitron_core.training.config import training_config
from multitron_core.utils.atomic_file import atomic_file

POINTS = 26
"""Number of preferences on a front that is measured for the report."""
OBJECTIVES = ("order_density", "order_recall_20", "recall_x_density", "order_loss")
ALLOWANCES = (0.005, 0.01, 0.02, 0.05)
"""Objectives and largest click recall losses for which the report lists the operating point."""


@dataclass(frozen=True, eq=False)
class Contents:
    """All data that a report shows.

    Args:
        config: The model folder's `config.json`.
        prepared: Sessions that the model was trained and measured on.
        front: One row per preference, as `front_table` returns it.
        volume: Normalised and raw hypervolume of the front.
        baselines: One row per baseline on the same steps, as `evaluate_baselines` returns it.
        epochs: One row per epoch, the model folder's `metrics.parquet`.
        point: The chosen operating point.
        alternatives: Points that other constraints would choose: `objective`, `max_click_recall_loss`, `pi`, `value`.
        ablation: Input ablation at the operating point, as `measurements.ablation` returns it.
        examples: Test sessions with their recommendation lists.
    """

    config: dict[str, Any]
    prepared: PreparedSessions
    front: pl.DataFrame
    volume: FrontVolume
    baselines: pl.DataFrame
    epochs: pl.DataFrame
    point: OperatingPoint
    alternatives: pl.DataFrame
    ablation: pl.DataFrame
    examples: list[Example]

    @property
    def against_baselines(self) -> pl.DataFrame:
        """Best value of the front and of the baselines, one row per metric."""
        return against_baselines(self.front, self.baselines)


def measure(
    model_dir: Path | str,
    prepared: PreparedSessions,
    *,
    objective: str = "order_density",
    max_click_recall_loss: float = 0.02,
    progress: Callable[[str], None] = lambda doing: None,
) -> Contents:
    """Measure the contents of a report. A front and baselines in the model folder are reused.

    Args:
        model_dir: Model folder. A front and baselines that are measured here are saved in it.
        prepared: Sessions that the model was trained on, with their test split.
        objective, max_click_recall_loss: Constraint for the operating point, see `choose_operating_point`.
        progress: Called with a description of each step that starts.

    Returns:
        Everything that `page` shows.

    Raises:
        InputError: `model_dir` is not a model folder or not of clicks and orders, the sessions use another vocabulary,
            the objective is unknown, or the front has no eligible point.
    """
    folder = Path(model_dir)
    model = load_model(folder)
    description = ModelDescription.read(folder)
    if prepared.vocabulary.hash != description.vocabulary_hash:
        raise InputError(
            "the sessions were encoded with another vocabulary than the model",
            where=folder,
            found=prepared.vocabulary.hash,
            hint="pass the sessions that this model was trained on",
        )
    if model.config.objectives != ("click", "order"):
        raise InputError(
            "the report supports only the objectives click and order",
            where=folder,
            found=model.config.objectives,
            hint="measure its front with python -m multitron_core.front --save",
        )
    config = training_config(folder)
    if not ((folder / "front.parquet").exists() and (folder / VOLUME_FILE).exists()):
        progress("measuring the front")
        measured = measure_front(model, prepared, spaced_preferences(POINTS, beta=config.data.beta), config=config)
        save_front(front_table(measured), front_volume(measured), folder)
    front = pl.read_parquet(folder / "front.parquet")
    volume = kept_volume(folder)
    baselines_file = folder / "baselines.parquet"
    if not baselines_file.exists():
        progress("measuring the baselines")
        measured_baselines = evaluate_baselines(prepared.train, prepared.test, max_length=model.config.max_length)
        with atomic_file(baselines_file) as new:
            measured_baselines.write_parquet(new)
    point = choose_operating_point(front, objective, max_click_recall_loss, model_version=description.version)
    progress("measuring the input ablation")
    measured_ablation = ablation(model, prepared.test, point.pi_key)
    progress("selecting example sessions")
    return Contents(
        config=description.to_dict(),
        prepared=prepared,
        front=front,
        volume=volume,
        baselines=pl.read_parquet(baselines_file),
        epochs=pl.read_parquet(folder / "metrics.parquet"),
        point=point,
        alternatives=_alternatives(front),
        ablation=measured_ablation,
        examples=examples(model, prepared.test, prepared.vocabulary, example_preferences(point.pi_key, front)),
    )


def example_preferences(chosen: str, front: pl.DataFrame) -> tuple[str, str, str]:
    """Preferences of the example lists: clicks only, the operating point, orders only.

    "0.95" replaces "1.00" if training does not rank items at "1.00". "0.50" replaces an operating point at either end.

    Args:
        chosen: Preference key of the operating point.
        front: Front with the column `ranks_trained`.
    """
    last = "1.00" if front["ranks_trained"].all() else "0.95"
    return ("0.00", chosen if "0.00" < chosen < last else "0.50", last)


def _alternatives(front: pl.DataFrame) -> pl.DataFrame:
    """Operating points by objective and largest click recall loss; objectives without values are omitted."""
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
                }
            )
    return pl.DataFrame(rows)
