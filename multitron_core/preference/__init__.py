"""Preferences: keys and vectors of pi, objectives, grids, and the operating point of a channel."""

from multitron_core.preference.keys import DEFAULT_GRID, pi_grid, pi_key, pi_vector, preference, preference_key
from multitron_core.preference.objectives import Objective, labels_of, objectives_of
from multitron_core.preference.operating_point import OperatingPoint, choose_operating_point

__all__ = [
    "DEFAULT_GRID",
    "Objective",
    "OperatingPoint",
    "choose_operating_point",
    "labels_of",
    "objectives_of",
    "pi_grid",
    "pi_key",
    "pi_vector",
    "preference",
    "preference_key",
]
