"""Spacing of preferences against the arcsine law and the weights that the paper publishes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from multitron_core.errors import InputError
from multitron_core.preference.spacing import spaced_preferences


def test_spaced_preferences_follow_the_arcsine_law() -> None:
    points = spaced_preferences()
    assert len(points) == 26
    assert points == pytest.approx([1 - math.sin(math.pi * i / 50) ** 2 for i in range(25, -1, -1)])


def test_spaced_preferences_match_the_published_weights() -> None:
    published = [1.0, 0.9961, 0.9843, 0.9649, 0.9382, 0.9045, 0.8645, 0.8187]
    assert [round(p, 4) for p in spaced_preferences()[::-1][:8]] == published
    published = [1.0, 0.9984, 0.9936, 0.9856, 0.9744, 0.96]
    assert [round(p, 4) for p in spaced_preferences(spacing="square")[::-1][:6]] == published


def test_spaced_preferences_rise_from_0_to_1_for_any_beta() -> None:
    points = spaced_preferences(7, beta=(1.2, 3.0))
    assert points[0] == 0.0
    assert points[-1] == 1.0
    assert np.all(np.diff(points) > 0)


@pytest.mark.parametrize("arguments", [{"points": 1}, {"spacing": "log"}, {"beta": (1.0,)}, {"beta": (0.0, 1.0)}])
def test_spaced_preferences_refuse_bad_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        spaced_preferences(**arguments)
