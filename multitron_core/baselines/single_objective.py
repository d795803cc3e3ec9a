"""Single-objective models as a baseline: models that were trained at one preference only.

The comparison shows what it costs to train one model for all preferences:

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
    """Metrics of a single-objective model at the preference that it was trained at.

    Args:
        model_dir: Folder of a model that was trained with the setting `trained_pi`.
        sessions: Folder of the prepared sessions that it was trained on; the test split is measured.
        k: List length of the metrics.

    Returns:
        One row: `baseline`, and the columns of `front.evaluation.front_table`.

    Raises:
        InputError: The model was trained on sampled preferences, or the sessions use another vocabulary.
    """
    model, config, test = model_and_test(model_dir, sessions)
    if config.data.trained_pi is None:
        raise InputError(
            "not a single-objective model: it was trained on sampled preferences",
            where=model_dir,
            found="trained_pi = None",
            hint='train a model with the setting trained_pi, for example "0.00", or measure this one with '
            "multitron_core.front",
        )
    pi = preference(config.data.trained_pi, len(model.config.objectives))
    row = evaluate_points(model, test, [pi], k=k, config=config)
    return row.select(pl.lit(f"single-objective model, pi {config.data.trained_pi}").alias("baseline"), pl.all())
