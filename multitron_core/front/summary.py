"""A measured front as text for a terminal."""

from __future__ import annotations

import polars as pl

from multitron_core.front.change import front_change, non_dominated_ends
from multitron_core.front.measurement import FrontMeasurement
from multitron_core.front.monotonicity import extremes, monotonicity
from multitron_core.front.volume import FrontVolume
from multitron_core.preference.operating_point import OperatingPoint
from multitron_core.utils.text_table import as_table


def front_text(
    measurement: FrontMeasurement,
    front: pl.DataFrame,
    volume: FrontVolume,
    point: OperatingPoint,
    *,
    k: int = 20,
    seed: int = 1,
) -> str:
    """What the commands print of a front.

    Args:
        measurement, front, volume, point: what was measured, its `front_table`, `front_volume` and operating point.
        k, seed: the length of the lists, and the seed of the bootstrap.

    Raises:
        InputError: between two objectives, no point is worth choosing (`front_change.non_dominated_ends`).
    """
    if len(measurement.objectives) == 2:
        first, last = (measurement.pi[end, 1] for end in non_dominated_ends(measurement))
        about = [
            as_table(monotonicity(front)),
            f"from pi_order {first:.4f} to {last:.4f}, the first and the last point that no other dominates and whose",
            "ranks were trained, the change with its bootstrap interval by session (95 %):",
            as_table(front_change(measurement, k=k, seed=seed)),
        ]
    else:
        about = [as_table(extremes(front))]
    labelled = [name.removesuffix("_steps") for name in front.columns if name.endswith("ed_steps")]
    return "\n".join(
        [
            as_table(front.select(pl.exclude("^.*steps$"))),
            *about,
            f"{front['steps'][0]} steps; " + ", ".join(f"{front[f'{name}_steps'][0]} {name}" for name in labelled),
            f"hypervolume, normalised by the front's own smallest and largest losses: {volume.normalised}",
            f"hypervolume, raw, reference point {volume.reference}: {volume.raw}",
            f"points that no other dominates: {front.height - front['dominated'].sum()} of {front.height}",
            f"operating point: pi {point.pi_key} gives {point.objective} {point.value:.4f} "
            f"and costs {point.click_recall_loss:.4f} click recall (allowed {point.max_click_recall_loss})",
        ]
    )
