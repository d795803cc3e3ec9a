"""Baselines that a model must beat: counts, session neighbours, single-objective models."""

from multitron_core.baselines.evaluation import evaluate_baselines

__all__ = [
    "evaluate_baselines",
]
