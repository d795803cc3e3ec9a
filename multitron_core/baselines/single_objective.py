"""A model that was trained at one preference alone, in the same table as the baselines: what it costs that one model
answers every preference.

    python -m multitron_core.training --sessions SESSIONS --preset NAME --training '{"trained_pi": "0.00"}' --out MODEL
    python -m multitron_core.baselines --sessions SESSIONS --single-objective MODEL
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from multitron_core.errors import InputError
from multitron_core.front.evaluation import evaluate_points
from multitron_core.front.files import model_and_test
from multitron_core.preference.keys import preference


def evaluate_single_objective(model_dir: Path, sessions: Path, *, k: int = 20) -> pl.DataFrame:
    """The metrics of a single-objective model at the preference that it was trained at.

    Args:
        model_dir: a model folder, trained with the setting `trained_pi`.
        sessions: the folder of prepared sessions that it was trained on; its test split is taken.
        k: the length of the lists.

    Returns:
        One row: `baseline`, and the columns of `front.front_table`.

    Raises:
        InputError: the model was trained on sampled preferences, or is of other sessions.
    """
    model, config, test = model_and_test(model_dir, sessions)
    if config.data.trained_pi is None:
        raise InputError(
            "not a single-objective model: it was trained on sampled preferences",
            where=model_dir,
            found="trained_pi = None",
            hint='train one with the setting trained_pi, for example "0.00", or measure this one with '
            "multitron_core.front",
        )
    pi = preference(config.data.trained_pi, len(model.config.objectives))
    row = evaluate_points(model, test, [pi], k=k, config=config)
    return row.select(pl.lit(f"single-objective model, pi {config.data.trained_pi}").alias("baseline"), pl.all())
