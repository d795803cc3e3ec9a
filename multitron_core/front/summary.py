"""Text summary of a measured front."""

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
    """Summary of a front for the terminal.

    Contains the front table; for two objectives the monotonicity and the change between the non-dominated ends, for
    more objectives the extremes; the hypervolumes with bootstrap confidence intervals; and the operating point.

    Args:
        measurement: Measured front.
        front, volume: Its `front_table` and `front_volume`.
        point: Its chosen operating point.
        k: List length of the metrics in `front`.
        seed: Seed of the bootstrap.

    Raises:
        InputError: A front of two objectives has no non-dominated point with trained ranks.
    """
    if len(measurement.objectives) == 2:
        first, last = (measurement.pi[end, 1] for end in non_dominated_ends(measurement))
        sections = [
            as_table(monotonicity(front)),
            f"change between the first and the last non-dominated point with trained ranks (pi_order {first:.4f} to "
            f"{last:.4f}),",
            "with its 95 % bootstrap confidence interval over sessions:",
            as_table(front_change(measurement, k=k, seed=seed)),
        ]
    else:
        sections = [as_table(extremes(front))]
    labels = [name.removesuffix("_steps") for name in front.columns if name.endswith("ed_steps")]
    return "\n".join(
        [
            as_table(front.select(pl.exclude("^.*steps$"))),
            *sections,
            f"{front['steps'][0]} steps; " + ", ".join(f"{front[f'{name}_steps'][0]} {name}" for name in labels),
            f"normalised hypervolume (each loss scaled from its smallest to its largest value): {volume.normalised}",
            f"raw hypervolume (reference point {volume.reference}): {volume.raw}",
            f"non-dominated points: {front.height - front['dominated'].sum()} of {front.height}",
            f"operating point: pi {point.pi_key}, {point.objective} {point.value:.4f}, "
            f"click recall loss {point.click_recall_loss:.4f} (maximum {point.max_click_recall_loss})",
        ]
    )
