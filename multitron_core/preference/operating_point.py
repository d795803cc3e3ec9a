"""Operating points: choose pi on a front from a business constraint, and record it in the model folder."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from multitron_core.errors import InputError
from multitron_core.preference.keys import preference_key
from multitron_core.utils.atomic_file import atomic_file

FILE_NAME = "operating_points.json"


@dataclass(frozen=True)
class OperatingPoint:
    """A point chosen on a front, with its objective and its loss of click recall."""

    pi_order: float  # exact weight of the point
    pi_click: float
    pi_key: str  # nearest key with two decimals, but "0.99" for a weight that only rounds to "1.00"; see `preference`
    objective: str
    value: float  # value of the objective at this point
    click_recall: float
    click_recall_loss: float  # best click recall among the eligible points minus that of this point
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
    """Choose the point that is best for an objective among those that lose little click recall.

    Columns whose name ends in `_loss` are minimised, all others are maximised. Among equal points, the one with the
    higher click recall is chosen, then the one with the smaller weight on orders.

    Args:
        front: Result of `evaluate_front`, with the columns `pi_order`, the objective, the click recall, `dominated`.
        objective: Column to optimise.
        max_click_recall_loss: Largest allowed difference (absolute) to the best click recall of the eligible points;
            0.02 means two hits per hundred steps.
        click_recall: Column of the constraint.
        include_dominated: Whether points that another one beats in every loss are eligible. In the paper's live test
            the dominated group was worse than another group on one measure and better on none.
        include_order_only: Whether points without a trained ranking are eligible. There `ranks_trained` is False:
            pi_order is 1 and the order loss does not rank. If the column is missing, points with pi_order = 1 count.
        model_version: Stored in the result.

    Returns:
        The chosen point.

    Raises:
        InputError: A column is missing, an argument is out of range, or no point is eligible.
    """
    required = ["pi_order", objective, click_recall] + ([] if include_dominated else ["dominated"])
    missing = [name for name in required if name not in front.columns]
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
            hint="use the largest acceptable loss of click recall, for example 0.02",
        )
    eligible = front.drop_nulls([objective, click_recall]).filter(pl.col(objective).is_not_nan())
    if not include_dominated:
        eligible = eligible.filter(~pl.col("dominated"))
    if not include_order_only:
        trained = pl.col("ranks_trained") if "ranks_trained" in front.columns else pl.col("pi_order") < 1.0
        eligible = eligible.filter(trained)
    if eligible.is_empty():
        raise InputError(
            "the front has no eligible point",
            where=f"{len(front)} points, objective {objective}",
            found={"include_dominated": include_dominated, "include_order_only": include_order_only},
            hint="evaluate more points, choose an objective that has values, or include the excluded points",
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
    """Key of exact weights; a weight on orders below 1 never becomes "1.00", where clicks have no weight."""
    if len(weights) > 2:
        return preference_key(weights)
    return f"{weights[1] if weights[1] == 1.0 else min(weights[1], 0.99):.2f}"


def record_operating_point(point: OperatingPoint, model_dir: Path | str, *, name: str, model_version: str) -> Path:
    """Record an operating point in the folder of its model; it replaces an earlier one of the same name.

    Args:
        point: The operating point; it is recorded with `model_version`.
        model_dir: Model folder.
        name: Purpose of the point, for example "newsletter".
        model_version: Version of the model in the folder.

    Returns:
        Path of `operating_points.json` in the model folder, a map from names to points.

    Raises:
        InputError: no such folder, a damaged file, or a point that was chosen for another model version.
    """
    model_dir = Path(model_dir)
    path = model_dir / FILE_NAME
    if not model_dir.is_dir():
        raise InputError("not a model folder", where=model_dir, hint="use a folder that training wrote")
    if point.model_version not in (None, model_version):
        raise InputError(
            "the operating point was chosen for another model",
            where=model_dir,
            found=point.model_version,
            hint=f"choose it on a front of model version {model_version}",
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
    with atomic_file(path) as new:
        new.write_text(json.dumps(points, indent=2) + "\n")
    return path
