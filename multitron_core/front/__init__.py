"""The Pareto front of a model: measured, checked, drawn, compared, and its hypervolume."""

from multitron_core.front.evaluation import evaluate_front
from multitron_core.front.measurement import measure_front
from multitron_core.front.volume import hypervolume
from multitron_core.preference.operating_point import choose_operating_point

__all__ = [
    "choose_operating_point",
    "evaluate_front",
    "hypervolume",
    "measure_front",
]
