"""Baselines that a model is compared with: popularity, co-visitation, session neighbours, single-objective models.

`evaluate_baselines` measures baselines on the steps that a model is evaluated on; `against_baselines` compares the
result with a front.
"""

from multitron_core.baselines.evaluation import against_baselines, default_baselines, evaluate_baselines

__all__ = [
    "against_baselines",
    "default_baselines",
    "evaluate_baselines",
]
