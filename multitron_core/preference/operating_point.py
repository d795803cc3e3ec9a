"""Operating points: from a business constraint to a pi, on record with the model that it was chosen for."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from multitron_core.errors import InputError
from multitron_core.preference.keys import preference_key

FILE_NAME = "operating_points.json"


@dataclass(frozen=True)
class OperatingPoint:
    """A pi that was chosen on a front, with what it was chosen for and what it costs."""

    pi_order: float  # of the front's point
    pi_click: float
    pi_key: str  # the nearest preference with two decimals, never "1.00" for less than 1; see `preference`
    objective: str
    value: float  # of the objective at this point
    click_recall: float
    click_recall_loss: float  # the best click recall of the front minus this point's
    max_click_recall_loss: float
    model_version: str | None = None


def choose_operating_point(
    front: pl.DataFrame,
    objective: str = "order_density",
    max_click_recall_loss: float = 0.02,
    *,
    click_recall: str = "click_recall_20",
    include_dominated: bool = False,
    include_order_only: bool = False,
    model_version: str | None = None,
) -> OperatingPoint:
    """The point that is best for the objective among those that give up little click recall.

    Losses (names that end in `_loss`) are made small, everything else large; of equal points the one with the higher
    click recall is taken, then the one with the smaller weight on orders.

    Args:
        front: what `evaluate_front` gives: `pi_order`, the objective, the click recall, `dominated`.
        objective: the column to optimise.
        max_click_recall_loss: click recall (absolute, 0.02 are two hits of a hundred steps) that may be given up
            against the best click recall among the points that may be chosen.
        click_recall: the column of the constraint.
        include_dominated: also take points that another one beats in every loss. In the paper's live test the
            dominated group lost to another group on one measure and won on none.
        include_order_only: also take points where nothing trained the ranks (`ranks_trained` is False: pi_order = 1
            under an order loss that does not rank); without that column, pi_order = 1.
        model_version: what the point is recorded for.

    Returns:
        The chosen point.

    Raises:
        InputError: a column is missing, an argument is out of range, or no point is left to choose from.
    """
    wanted = ["pi_order", objective, click_recall] + ([] if include_dominated else ["dominated"])
    missing = [name for name in wanted if name not in front.columns]
    if missing:
        raise InputError(
            "the front has no such column",
            where="choose_operating_point",
            found=missing,
            hint=f"it has {front.columns}",
        )
    if not 0.0 <= max_click_recall_loss <= 1.0:
        raise InputError(
            "max_click_recall_loss lies outside [0, 1]",
            found=max_click_recall_loss,
            hint="give the click recall that may be lost, for example 0.02",
        )
    eligible = front.drop_nulls([objective, click_recall]).filter(pl.col(objective).is_not_nan())
    if not include_dominated:
        eligible = eligible.filter(~pl.col("dominated"))
    if not include_order_only:
        trained = pl.col("ranks_trained") if "ranks_trained" in front.columns else pl.col("pi_order") < 1.0
        eligible = eligible.filter(trained)
    if eligible.is_empty():
        raise InputError(
            "the front has no point to choose from",
            where=f"{len(front)} points, objective {objective}",
            found={"include_dominated": include_dominated, "include_order_only": include_order_only},
            hint="evaluate more points, choose an objective that has values, or include the points that are left out",
        )
    best = float(eligible[click_recall].max())  # type: ignore[arg-type]
    row = (
        eligible.with_columns((best - pl.col(click_recall)).alias("lost"))
        .filter(pl.col("lost") <= max_click_recall_loss + 1e-12)
        .sort(objective, click_recall, "pi_order", descending=[not objective.endswith("_loss"), True, False])
        .row(0, named=True)
    )
    pi_order = float(row["pi_order"])
    weights = [row[name] for name in reversed(front.columns) if name.startswith("pi_")]
    return OperatingPoint(
        pi_order=pi_order,
        pi_click=float(row.get("pi_click", 1.0 - pi_order)),
        pi_key=_key(weights if len(weights) > 2 else [1.0 - pi_order, pi_order]),
        objective=objective,
        value=float(row[objective]),
        click_recall=float(row[click_recall]),
        click_recall_loss=float(row["lost"]),
        max_click_recall_loss=max_click_recall_loss,
        model_version=model_version,
    )


def _key(weights: list[float]) -> str:
    if len(weights) > 2:
        return preference_key(weights)
    return f"{weights[1] if weights[1] == 1.0 else min(weights[1], 0.99):.2f}"


def record_operating_point(point: OperatingPoint, model_dir: Path | str, *, name: str, model_version: str) -> Path:
    """Write an operating point to its model's folder; one of the same name is replaced.

    Args:
        point: the operating point; it is recorded with `model_version`.
        model_dir: the model folder.
        name: what the point is used for, for example "newsletter".
        model_version: version of the model in the folder.

    Returns:
        `operating_points.json` in the model folder: name -> point.

    Raises:
        InputError: no such folder, a damaged file, or a point that was chosen for another version.
    """
    model_dir = Path(model_dir)
    path = model_dir / FILE_NAME
    if not model_dir.is_dir():
        raise InputError("not a model folder", where=model_dir, hint="name a folder that training wrote")
    if point.model_version not in (None, model_version):
        raise InputError(
            "the operating point was chosen for another model",
            where=model_dir,
            found=point.model_version,
            hint=f"choose it on a front of version {model_version}",
        )
    try:
        points = json.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise InputError(
            "the recorded operating points cannot be read",
            where=path,
            found=str(error),
            hint="delete the file, then record the points again",
        ) from error
    points[name] = dataclasses.asdict(dataclasses.replace(point, model_version=model_version))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(points, indent=2) + "\n")
    os.replace(temporary, path)
    return path
