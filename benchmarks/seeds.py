"""Fronts of one preset with several seeds, and the mean change along them.

    python benchmarks/seeds.py --models MODEL ... --sessions PREPARED [--points 26] [--out FOLDER]
    python benchmarks/seeds.py --small                                       # two seeds of a small simulated shop

Prints per model: losses and recalls at pi 0 and 1; normalised and raw hypervolume with bootstrap confidence intervals;
the normalised hypervolume of the non-dominated points only; the hypervolumes in the paper's losses, where orders have
the binary loss only, even if the model has a ranking loss too; and the change from the first to the last non-dominated
point with its interval. Then prints the change of the mean of all models, with an interval from the same resamples of
sessions for all models. --out saves every front as a CSV file.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import torch

from multitron_core.events.read import read_events
from multitron_core.front.change import COLUMNS, changes, non_dominated_ends, session_sums
from multitron_core.front.evaluation import front_preferences, front_table, front_volume
from multitron_core.front.files import model_and_test
from multitron_core.front.measurement import FrontMeasurement, measure_front
from multitron_core.front.volume import PAPER_REFERENCES, FrontVolume, dominated, hypervolume, normalised_hypervolume
from multitron_core.sessions.prepare import prepare_sessions
from multitron_core.simulator.simulation import simulate
from multitron_core.training import presets
from multitron_core.training.trainer import train
from multitron_core.utils.text_table import as_table


def in_paper_losses(measurement: FrontMeasurement) -> np.ndarray | None:
    """Mean losses, float [points, 2], with the paper's order loss; None if the model's order loss does not contain it.

    "ranked_bce" is the sum of the click loss of ordered steps, divided by their share, and the binary loss.
    """
    name = measurement.objectives[1].loss
    if name not in ("bce", "ranked_bce"):
        return None
    means = measurement.losses.mean(axis=1, dtype=np.float64)
    if name == "ranked_bce":
        ordered = measurement.steps["ordered"].to_numpy()
        means[:, 1] -= measurement.losses[:, ordered, 0].mean(axis=1, dtype=np.float64)
    return means


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="+", help="model folders of one preset")
    parser.add_argument("--sessions", type=Path, help="folder of the prepared sessions that they were trained on")
    parser.add_argument("--points", type=int, default=26)
    parser.add_argument("--whole-sessions", action="store_true", help="see `python -m multitron_core.front --help`")
    parser.add_argument("--out", type=Path, help="folder for the fronts: front-1.csv, front-2.csv, ...")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--small", action="store_true", help="half a minute: two seeds of a simulated shop, 6 points")
    options = parser.parse_args()
    if bool(options.models) != bool(options.sessions) or not (options.models or options.small):
        parser.error("pass --models and --sessions together, or --small")
    with tempfile.TemporaryDirectory() as temporary:
        if not options.models:
            options.points, options.sessions = 6, Path(temporary) / "sessions"
            options.models = _train_small(Path(temporary))
        sums, figures = [], []
        for number, folder in enumerate(options.models, start=1):
            model, config, test = model_and_test(folder, options.sessions)
            preferences = front_preferences(model, options.points, spacing="beta", beta=config.beta)
            measured = measure_front(model, test, preferences, config=config, whole_sessions=options.whole_sessions)
            front = front_table(measured)
            if options.out:
                options.out.mkdir(parents=True, exist_ok=True)
                front.write_csv(options.out / f"front-{number}.csv", float_precision=5)
            sums.append(session_sums(measured, k=20))
            volume, change = front_volume(measured), changes(sums[-1:])
            _print_front(folder, front, measured, volume)
            print(as_table(change), flush=True)
            figures.append(
                {"hypervolume": dataclasses.asdict(volume), "change": change.to_dicts(), "front": front.to_dicts()}
            )
    mean_change = changes(sums)
    print(f"mean change of {len(sums)} models, with its 95 % bootstrap confidence interval over sessions:")
    print(as_table(mean_change))
    if options.json:
        options.json.write_text(json.dumps({"models": figures, "change": mean_change.to_dicts()}, indent=2))
    return 0


def _print_front(folder: Path, front: pl.DataFrame, measured: FrontMeasurement, volume: FrontVolume) -> None:
    ends = non_dominated_ends(measured)
    print(f"\n{folder}: {front['steps'][0]} steps, {front['ordered_steps'][0]} ordered; {front.height} points")
    print(f"  normalised hypervolume {volume.normalised}; raw {volume.raw}, reference point {volume.reference}")
    non_dominated = front.filter(~pl.col("dominated")).select("click_loss", "order_loss").to_numpy()
    print(f"  normalised hypervolume of the non-dominated points only {normalised_hypervolume(non_dominated):.4f}")
    paper = in_paper_losses(measured)
    if paper is not None:
        reference = PAPER_REFERENCES["diginetica"]
        print(
            f"  in the paper's losses: normalised {normalised_hypervolume(paper):.4f}, raw "
            f"{hypervolume(paper, reference):.4f} reference point {reference}, "
            f"{(~dominated(paper)).sum()} non-dominated points"
        )
    first, last = (measured.pi[point, 1] for point in ends)
    print(
        f"  {(~front['dominated']).sum()} non-dominated points; the change below is from pi {first:.2f} to {last:.2f}"
    )
    for name in (*COLUMNS, "click_mrr_20", "last_click_recall_20", "order_density"):
        values = front[name.format(k=20)]
        print(f"  {values.name}, pi 0 to 1: {values[0]:.5f} to {values[-1]:.5f}")


def _train_small(folder: Path) -> list[Path]:
    torch.set_num_threads(1)
    simulate(folder / "raw", sessions=8_000, items=500)
    prepared = prepare_sessions(read_events(folder / "raw", "table"))
    prepared.save(folder / "sessions")
    recipe = presets.demo().changed(training={"epochs": 2, "order_loss": "ranked_bce"})
    return [
        train(prepared, recipe.changed(training={"seed": seed}), folder / f"model-{seed}", progress=False)
        for seed in (1, 2)
    ]


if __name__ == "__main__":
    sys.exit(main())
