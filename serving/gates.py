"""Quality gates: conditions on the front of a candidate before it is promoted.

A gate compares `front.parquet` of the candidate's version folder with the live version's, or with a baseline. Each
front was measured by the evaluation of its model. A shop that evaluates on a new week therefore compares weeks as well
as models; the tolerance allows for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from multitron_core.errors import InputError
from multitron_core.front.volume import hypervolume

Gate = Callable[[Path, Path | None], None]
"""A function of the candidate's version folder and the live one (None before the first deployment). It raises
InputError to refuse the candidate."""

RECALLS = ("click_recall_20", "order_recall_20")
"""Columns of a front that `no_worse_than_live` compares: recall in the first 20 items, between 0 and 1."""
LOSSES = ("click_loss", "order_loss")
"""Columns of a front that span its hypervolume: mean loss in nats per step."""


def no_worse_than_live(*, tolerance: float = 0.05) -> Gate:
    """Refuse a candidate whose front is worse than the live model's.

    The gate compares the best click recall and order recall of the two fronts, and the hypervolume of their losses.
    Both hypervolumes have the same reference point: the largest losses of the two fronts.

    Args:
        tolerance: accepted relative loss, at least 0 and below 1; 0.05 accepts 95 % of the live model's value.

    Raises:
        InputError: `tolerance` lies outside its range. The gate raises it for a candidate that is worse, or that has
            no usable front.
    """
    if not 0.0 <= tolerance < 1.0:
        raise InputError(
            "the tolerance lies outside its range", where="tolerance", found=tolerance, hint="use at least 0, below 1"
        )

    def gate(candidate: Path, live: Path | None) -> None:
        if live is None or not (live / "front.parquet").exists():
            return  # the first deployment, or a live model that was never evaluated
        new, old = _front(candidate), _front(live)
        reference = np.maximum(new.select(LOSSES).to_numpy().max(axis=0), old.select(LOSSES).to_numpy().max(axis=0))
        values = {name: (_best(new, name), _best(old, name)) for name in RECALLS}
        values["hypervolume"] = (_volume(new, reference), _volume(old, reference))
        for name, (found, wanted) in values.items():
            if found < (1.0 - tolerance) * wanted:
                raise InputError(
                    "the candidate's front is worse than the live model's",
                    where=f"{name} of {candidate}",
                    found=found,
                    hint=f"the gate requires at least {(1.0 - tolerance) * wanted:.4g} (live: {wanted:.4g}); train "
                    "longer, or raise the tolerance",
                )

    return gate


def better_than(baseline: Mapping[str, float], *, name: str = "co-visitation") -> Gate:
    """Refuse a candidate whose best value does not exceed a baseline's.

    Args:
        baseline: columns of the front and the baseline's values, higher is better: `{"click_recall_20": 0.47}`.
        name: name of the baseline, for the error message.

    Raises:
        InputError: raised by the gate for a candidate that is no better, or that has no usable front.
    """

    def gate(candidate: Path, live: Path | None) -> None:
        front = _front(candidate)
        for column, wanted in baseline.items():
            found = _best(front, column)
            if found <= wanted:
                raise InputError(
                    f"the candidate is no better than {name}",
                    where=f"{column} of {candidate}",
                    found=found,
                    hint=f"the gate requires more than {wanted:.4g}; train longer, or serve the baseline",
                )

    return gate


def _front(folder: Path) -> pl.DataFrame:
    path = folder / "front.parquet"
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            "the model was not evaluated", where=path, found=str(error), hint="evaluate its front, then deploy"
        ) from error


def _best(front: pl.DataFrame, column: str) -> float:
    """The largest value of a column among points whose ranking was trained.

    0 where no value was measured, as for a test week without orders.
    """
    if column not in front.columns:
        raise InputError("the front lacks a column", where=column, found=front.columns, hint="evaluate the front again")
    if "ranks_trained" in front.columns:
        front = front.filter("ranks_trained")
    return float(front[column].cast(pl.Float64).fill_nan(None).max() or 0.0)  # type: ignore[arg-type]


def _volume(front: pl.DataFrame, reference: np.ndarray) -> float:
    """The hypervolume of a front's losses, in squared nats per step."""
    return hypervolume(front.select(LOSSES).to_numpy(), reference)
