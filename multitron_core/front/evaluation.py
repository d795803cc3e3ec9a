"""The front: what every preference costs and gives, measured on held-out sessions.

    python -m multitron_core.front --model MODEL --sessions SESSIONS

prints a row a preference, how steadily losses and metrics follow the preference, what they change over the points that
no other dominates, the hypervolumes, with intervals, and the operating point that a business constraint leads to.
--save keeps table and pictures in the model folder, --record the operating point.
"""

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
from multitron_core.front.volume import (
    FrontVolume,
    bootstrap_hypervolume,
    dominated,
)
from multitron_core.metrics.ranking import ranking_metrics
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.objectives import LABELS
from multitron_core.preference.spacing import lattice_preferences, spaced_preferences
from multitron_core.sessions.encoded import EncodedSessions


def front_table(measurement: FrontMeasurement, *, k: int = 20) -> pl.DataFrame:
    """A row a preference, rising in pi_order.

    Returns:
        `pi_order`, `pi_click`; `click_loss`, `order_loss` (means over steps, in nats), and the same of further
        objectives; the metrics of `metrics.ranking_metrics`; `dominated` (another point is no worse in all losses and
        better in one); `ranks_trained` (see `FrontMeasurement`); `steps`, `ordered_steps`, `carted_steps`.

    Raises:
        InputError: lists longer than ranks are exact.
    """
    check_list_length(k)
    means = measurement.losses.mean(axis=1, dtype=np.float64)
    beaten = dominated(means)
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
                "dominated": bool(beaten[point]),
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
    """Normalised and raw hypervolume with bootstrap intervals by session.

    Args:
        measurement: what `measure_front` gave.
        reference: of the raw hypervolume, a loss an objective; by default the losses of a model that knows nothing (ln
            of the number of candidates for a loss that ranks, ln 2 for "bce", their sum for both).
        resamples, level, seed: of the bootstrap.
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
    **measuring: Unpack[MeasureOptions],
) -> pl.DataFrame:
    """The rows of `front_table` for given preferences; arguments as in `measure_front`."""
    return front_table(measure_front(model, dataset, preferences, **measuring), k=k)


def evaluate_front(
    model: MultiTRON,
    dataset: EncodedSessions | HasTestSplit,
    points: int = 26,
    *,
    spacing: Literal["beta", "square"] = "beta",
    beta: Sequence[float] | None = None,
    k: int = 20,
    **measuring: Unpack[MeasureOptions],
) -> pl.DataFrame:
    """One row a preference: `front_table` at the preferences of `front_preferences`.

    Args:
        points, spacing: how many, and where they lie, with `beta` (that of `config` when None).
        k: the length of the lists.
        model, dataset, measuring: see `measure_front`.
    """
    if beta is None:
        beta = measuring["config"].data.beta
    preferences = front_preferences(model, points, spacing=spacing, beta=beta)
    return evaluate_points(model, dataset, preferences, k=k, **measuring)


def front_preferences(
    model: MultiTRON, points: int, *, spacing: Literal["beta", "square"], beta: Sequence[float]
) -> list[tuple[float, ...]]:
    """The preferences of a front of at least so many points: `spaced_preferences`, or for three objectives and more
    `lattice_preferences`."""
    objectives = len(model.config.objectives)
    if objectives > 2:
        return lattice_preferences(points, objectives)
    return [(1.0 - order, order) for order in spaced_preferences(points, spacing=spacing, beta=beta)]
