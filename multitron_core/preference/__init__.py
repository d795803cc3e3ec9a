"""Preferences between objectives: keys and weight vectors, grids, spacing on a front, operating points.

A preference pi holds one non-negative weight per objective; the weights sum to 1.
"""

from multitron_core.preference.keys import (
    DEFAULT_GRID,
    pi_grid,
    pi_key,
    pi_vector,
    preference,
    preference_key,
    preferences,
)
from multitron_core.preference.objectives import Objective, labels_of, objectives_of
from multitron_core.preference.operating_point import OperatingPoint, choose_operating_point
from multitron_core.preference.spacing import lattice_preferences, spaced_preferences

__all__ = [
    "DEFAULT_GRID",
    "Objective",
    "OperatingPoint",
    "choose_operating_point",
    "labels_of",
    "lattice_preferences",
    "objectives_of",
    "pi_grid",
    "pi_key",
    "pi_vector",
    "preference",
    "preference_key",
    "preferences",
    "spaced_preferences",
]
