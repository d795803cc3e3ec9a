"""Decay of a model: how much of its front's area is lost on newer sessions."""

from __future__ import annotations

from dataclasses import dataclass

import moocore
import numpy as np
import polars as pl

from multitron_core.errors import InputError

FIGURES = ("click_recall_20", "order_recall_20")
"""Metrics that span the area: between 0 and 1, larger is better."""

LEAST_SESSIONS = 200
"""Minimum number of sessions; on fewer, sampling noise dominates the area."""


@dataclass(frozen=True)
class Decay:
    """Area under a model's front at training time and on newer sessions.

    Args:
        area_then, area_now: Area under the front, its hypervolume in (click recall@20, order recall@20) with the origin
            as reference point. Clicks on items outside the model's vocabulary count as misses.
        known_share: Share of the new clicks that are on items of the model's vocabulary.
        sessions: Number of new sessions that were measured.
        lost: Share of the area that is lost; negative if the area has grown.
    """

    area_then: float
    area_now: float
    known_share: float
    sessions: int
    lost: float

    def beyond(self, max_decay: float) -> bool:
        """Whether more than `max_decay` of the area is lost, measured on at least `LEAST_SESSIONS` sessions."""
        return self.sessions >= LEAST_SESSIONS and self.lost > max_decay


def decay(then: pl.DataFrame, now: pl.DataFrame, *, known_share: float, sessions: int) -> Decay:
    """Compare a front with the front that was measured when the model was trained.

    Args:
        then, now: One row per preference with `pi_order` and `FIGURES`, as `front_table` returns it. Only preferences
            in both tables are compared.
        known_share: Share of the new clicks that are on items of the model's vocabulary, in [0, 1].
        sessions: Number of sessions that `now` was measured on.

    Raises:
        InputError: The tables share no preference or no finite metric, or `known_share` is outside [0, 1].
    """
    if not 0.0 <= known_share <= 1.0:
        raise InputError("a share lies outside [0, 1]", where="known_share", found=known_share)
    both = then.join(now, on="pi_order", suffix="_now").sort("pi_order")
    if both.is_empty():
        raise InputError(
            "the fronts have no preference in common", hint="measure the preferences of the front at training time"
        )
    # Sessions without orders have no order recall; only click recall is compared then.
    names = [name for name in FIGURES if both[name].is_finite().all() and both[f"{name}_now"].is_finite().all()]
    if not names:
        raise InputError("the fronts have no finite metric in common", found=both.columns)
    area_then = _area(both.select(names).to_numpy())
    area_now = _area(both.select(f"{name}_now" for name in names).to_numpy() * known_share)
    lost = 1.0 - area_now / area_then if area_then > 0 else 0.0
    return Decay(area_then, area_now, known_share, sessions, lost)


def _area(points: np.ndarray) -> float:
    """Area (or length) between the origin and the points, float [n, 1 or 2]."""
    if points.shape[1] == 1:
        return float(points.max())
    return float(moocore.hypervolume(np.ascontiguousarray(points, dtype=np.float64), ref=[0.0, 0.0], maximise=True))
