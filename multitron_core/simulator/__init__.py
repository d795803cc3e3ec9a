"""A simulated shop: raw files in the raw formats, and the ground truth that they were drawn from."""

from multitron_core.simulator.ground_truth import Habits, Truth
from multitron_core.simulator.simulation import Simulation, simulate

__all__ = [
    "Habits",
    "Simulation",
    "Truth",
    "simulate",
]
