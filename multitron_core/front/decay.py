"""How much of its front a model has lost since it was trained: the same figures, measured on new sessions."""

from __future__ import annotations

from dataclasses import dataclass

import moocore
import numpy as np
import polars as pl

from multitron_core.errors import InputError

FIGURES = ("click_recall_20", "order_recall_20")
"""What the front is made of here: larger is better, between 0 and 1."""

LEAST_SESSIONS = 200
"""On fewer sessions a front says more about chance than about the model."""


@dataclass(frozen=True)
class Decay:
    """A model's front then and now.

    Args:
        area_then, area_now: the area under the front, its hypervolume in (click recall@20, order recall@20) from the
            origin; a click on an item that the model does not know counts as one that it has not found.
        known_share: share of the new clicks that are on items that the model knows.
        sessions: how many new ones were measured.
        lost: share of the area that is gone, below 0 where the front has grown.
    """

    area_then: float
    area_now: float
    known_share: float
    sessions: int
    lost: float

    def beyond(self, max_decay: float) -> bool:
        """Whether more is lost than may be, on sessions enough to say so."""
        return self.sessions >= LEAST_SESSIONS and self.lost > max_decay


def decay(then: pl.DataFrame, now: pl.DataFrame, *, known_share: float, sessions: int) -> Decay:
    """Compare a front with the one that was measured when the model was trained.

    Args:
        then, now: a row a preference with `pi_order` and `FIGURES`, as `front.front_table` gives them; compared at the
            preferences that both have.
        known_share: in [0, 1].
        sessions: that `now` was measured on.

    Raises:
        InputError: no common preference, or a share outside [0, 1].
    """
    if not 0.0 <= known_share <= 1.0:
        raise InputError("a share lies outside [0, 1]", where="known_share", found=known_share)
    both = then.join(now, on="pi_order", suffix="_now").sort("pi_order")
    if both.is_empty():
        raise InputError("the fronts have no preference in common", hint="measure at the preferences of training")
    # Sessions without orders say nothing of orders: then only the clicks are compared.
    names = [name for name in FIGURES if both[name].is_finite().all() and both[f"{name}_now"].is_finite().all()]
    if not names:
        raise InputError("the fronts have no figures in common", found=both.columns)
    area_then = _area(both.select(names).to_numpy())
    area_now = _area(both.select(f"{name}_now" for name in names).to_numpy() * known_share)
    lost = 1.0 - area_now / area_then if area_then > 0 else 0.0
    return Decay(area_then, area_now, known_share, sessions, lost)


def _area(points: np.ndarray) -> float:
    """The area (or length) between the origin and points float [n, 1 or 2]."""
    if points.shape[1] == 1:
        return float(points.max())
    return float(moocore.hypervolume(np.ascontiguousarray(points, dtype=np.float64), ref=[0.0, 0.0], maximise=True))
