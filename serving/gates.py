"""Quality gates: what a candidate must show beside correct lists before it is promoted.

A gate compares `front.parquet` of the candidate's version folder with the live one's, or with a baseline. Both fronts
are measured by their own evaluation, so a shop that evaluates on a new week compares weeks as well as models: the
tolerances are the room for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from multitron_core.errors import InputError
from multitron_core.front.volume import hypervolume

Gate = Callable[[Path, Path | None], None]
"""Called with the candidate's version folder and the live one's (None before the first deployment); raises InputError
to refuse the candidate."""

RECALLS = ("click_recall_20", "order_recall_20")
LOSSES = ("click_loss", "order_loss")


def no_worse_than_live(*, tolerance: float = 0.05) -> Gate:
    """Refuse a candidate whose front is worse than the live model's.

    Compared are the best click and order recall of the front and its hypervolume of losses, both with the same
    reference point: the largest losses of the two fronts.

    Args:
        tolerance: the share of the live model's figure that the candidate may lack.
    """
    if not 0.0 <= tolerance < 1.0:
        raise InputError("the tolerance is a share", where="tolerance", found=tolerance, hint="use 0 to 1")

    def gate(candidate: Path, live: Path | None) -> None:
        if live is None or not (live / "front.parquet").exists():
            return  # nothing to compare with: the first deployment, or a live model that was never evaluated
        new, old = _front(candidate), _front(live)
        reference = np.maximum(new.select(LOSSES).to_numpy().max(axis=0), old.select(LOSSES).to_numpy().max(axis=0))
        figures = {name: (_best(new, name), _best(old, name)) for name in RECALLS}
        figures["hypervolume"] = (_volume(new, reference), _volume(old, reference))
        for name, (found, wanted) in figures.items():
            if found < (1.0 - tolerance) * wanted:
                raise InputError(
                    "the candidate's front is worse than the live model's",
                    where=f"{name} of {candidate}",
                    found=found,
                    hint=f"at least {(1.0 - tolerance) * wanted:.4g} is asked (live: {wanted:.4g}); train longer, or "
                    "allow more tolerance",
                )

    return gate


def better_than(baseline: Mapping[str, float], *, name: str = "co-visitation") -> Gate:
    """Refuse a candidate that does not beat a baseline at any point of its front.

    Args:
        baseline: columns of the front and the baseline's figures, more being better: `{"click_recall_20": 0.47}`.
        name: of the baseline.
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
                    hint=f"more than {wanted:.4g} is asked: a table of counts serves better; train longer",
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
    """The largest figure of a column among points whose ranks were trained; 0 where none was measured (a test week
    without orders)."""
    if column not in front.columns:
        raise InputError("the front lacks a column", where=column, found=front.columns, hint="evaluate the front again")
    if "ranks_trained" in front.columns:
        front = front.filter("ranks_trained")
    return float(front[column].cast(pl.Float64).fill_nan(None).max() or 0.0)  # type: ignore[arg-type]


def _volume(front: pl.DataFrame, reference: np.ndarray) -> float:
    return hypervolume(front.select(LOSSES).to_numpy(), reference)
