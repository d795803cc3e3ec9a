"""Measure the Pareto front of a trained model: losses and ranking metrics by preference.

`measure_front` measures every step of the test sessions at every preference, `evaluate_front` returns the measurement
as a table. Further modules compute hypervolumes with bootstrap confidence intervals, check monotonicity and decay,
and draw and save fronts.
"""

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
