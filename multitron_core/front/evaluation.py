"""Front tables: losses and ranking metrics by preference, with hypervolumes, on held-out sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

import numpy as np
import polars as pl

from multitron_core.front.measurement import (
    FrontMeasurement,
    HasTestSplit,
    MeasureOptions,
    check_list_length,
    measure_front,
)
from multitron_core.front.volume import FrontVolume, bootstrap_hypervolume, dominated
from multitron_core.metrics.ranking import ranking_metrics
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.objectives import LABELS
from multitron_core.preference.spacing import lattice_preferences, spaced_preferences
from multitron_core.sessions.encoded import EncodedSessions


def front_table(measurement: FrontMeasurement, *, k: int = 20) -> pl.DataFrame:
    """Aggregate a measurement to one row per preference, in ascending order of pi_order.

    Args:
        measurement: Losses and ranks per step, from `measure_front`.
        k: List length of the ranking metrics, 1 to `MAX_RANK`.

    Returns:
        `pi_order`, `pi_click`; `click_loss`, `order_loss` (means over steps, in nats), and the same for further
        objectives; the metrics of `metrics.ranking.ranking_metrics`; `dominated` (another point is no worse in all
        losses and better in one); `ranks_trained` (see `FrontMeasurement`); `steps`, `ordered_steps`, `carted_steps`.

    Raises:
        InputError: `k` is out of range.
    """
    check_list_length(k)
    means = measurement.losses.mean(axis=1, dtype=np.float64)
    is_dominated = dominated(means)
    names = [objective.name for objective in measurement.objectives]
    ranks_trained = measurement.ranks_trained
    labels = [label for label in LABELS.values() if label in measurement.steps.columns]
    rows: list[dict[str, object]] = []
    for point, pi in enumerate(measurement.pi):
        ranked = measurement.steps.with_columns(pl.Series("rank", measurement.ranks[point]))
        rows.append(
            {
                **{f"pi_{name}": float(weight) for name, weight in zip(reversed(names), reversed(pi), strict=True)},
                **{f"{name}_loss": float(loss) for name, loss in zip(names, means[point], strict=True)},
                **ranking_metrics(ranked, k=k),
                "dominated": bool(is_dominated[point]),
                "ranks_trained": bool(ranks_trained[point]),
                "steps": len(ranked),
                **{f"{label}_steps": int(ranked[label].sum()) for label in reversed(labels)},
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def front_volume(
    measurement: FrontMeasurement,
    *,
    reference: Sequence[float] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 1,
) -> FrontVolume:
    """Normalised and raw hypervolume with bootstrap confidence intervals over sessions.

    Args:
        measurement: Losses per step, from `measure_front`.
        reference: Reference point of the raw hypervolume, one loss per objective. By default the losses of a model
            without information: ln of the number of candidates for a ranking loss, ln 2 for "bce", their sum for
            "ranked_bce".
        resamples, level, seed: Settings of the bootstrap.
    """
    _, sessions = np.unique(measurement.steps["session"].to_numpy(), return_inverse=True)
    counts = np.bincount(sessions)
    points, _, k = measurement.losses.shape
    sums = np.empty((len(counts), points, k))
    for point in range(points):
        for j in range(k):
            sums[:, point, j] = np.bincount(sessions, weights=measurement.losses[point, :, j])
    return bootstrap_hypervolume(
        sums,
        counts,
        measurement.reference if reference is None else reference,
        resamples=resamples,
        level=level,
        seed=seed,
    )


def evaluate_points(
    model: MultiTRON,
    dataset: EncodedSessions | HasTestSplit,
    preferences: Sequence[float] | Sequence[Sequence[float]],
    *,
    k: int = 20,
    **options: Unpack[MeasureOptions],
) -> pl.DataFrame:
    """Measure the given preferences and return their `front_table`; arguments as in `measure_front`."""
    return front_table(measure_front(model, dataset, preferences, **options), k=k)


def evaluate_front(
    model: MultiTRON,
    dataset: EncodedSessions | HasTestSplit,
    points: int = 26,
    *,
    spacing: Literal["beta", "square"] = "beta",
    beta: Sequence[float] | None = None,
    k: int = 20,
    **options: Unpack[MeasureOptions],
) -> pl.DataFrame:
    """Measure a front and return its `front_table`, one row per preference.

    Args:
        model, dataset, options: See `measure_front`.
        points, spacing, beta: Preferences to measure, see `front_preferences`. `beta` is by default that of `config`.
        k: List length of the ranking metrics.
    """
    if beta is None:
        beta = options["config"].data.beta
    preferences = front_preferences(model, points, spacing=spacing, beta=beta)
    return evaluate_points(model, dataset, preferences, k=k, **options)


def front_preferences(
    model: MultiTRON, points: int, *, spacing: Literal["beta", "square"], beta: Sequence[float]
) -> list[tuple[float, ...]]:
    """Preferences of a front with at least `points` points.

    For two objectives these are `spaced_preferences`, for three or more `lattice_preferences`, which does not use
    `spacing` and `beta`.

    Returns:
        Rows of one weight per objective.
    """
    objectives = len(model.config.objectives)
    if objectives > 2:
        return lattice_preferences(points, objectives)
    return [(1.0 - order, order) for order in spaced_preferences(points, spacing=spacing, beta=beta)]
