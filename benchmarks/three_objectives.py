"""Train and measure a model of three objectives, clicks, carts and orders, on a simulated shop in OTTO's format.

    python benchmarks/three_objectives.py [--out FOLDER]

Simulates raw files, prepares sessions labelled with carts and orders, trains one model on preferences of three weights,
and measures a lattice of at least 26 preferences. Prints the front, whether each end has the smallest loss of its
objective, and both hypervolumes. Exit status 1 if an end does not. --out saves the model folder with table and plots.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
import torch

from multitron_core.events.read import read_events
from multitron_core.front.evaluation import front_preferences, front_table, front_volume
from multitron_core.front.files import save_front
from multitron_core.front.measurement import measure_front
from multitron_core.front.monotonicity import extremes
from multitron_core.losses.objective_losses import EVENT_LOSSES
from multitron_core.model.folder import load_model
from multitron_core.sessions.prepare import format_statistics, prepare_sessions
from multitron_core.simulator.simulation import simulate
from multitron_core.training import presets
from multitron_core.training.trainer import train

OBJECTIVES = ("click", "cart", "order")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=8_000)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--points", type=int, default=26)
    parser.add_argument("--loss", choices=tuple(EVENT_LOSSES), default="bce", help="loss of carts and of orders")
    parser.add_argument("--out", type=Path, help="save the model folder with the front and its plots")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--small", action="store_true", help="half a minute: 10 points")
    options = parser.parse_args()
    if options.small:
        options.points = 10
    torch.set_num_threads(1)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary) / "model"
        simulate(Path(temporary) / "raw", sessions=options.sessions, items=options.items, format="otto")
        data = prepare_sessions(read_events(Path(temporary) / "raw", "otto"), "otto", objectives=OBJECTIVES)
        print(format_statistics(data.statistics), flush=True)
        recipe = presets.demo().with_objectives(OBJECTIVES)
        recipe = recipe.changed(
            training={"epochs": options.epochs, "order_loss": options.loss, "cart_loss": options.loss}
        )
        train(data, recipe, folder)
        model = load_model(folder)
        points = front_preferences(model, options.points, spacing="beta", beta=recipe.training.beta)
        measured = measure_front(model, data, points, config=recipe.training)
        front = front_table(measured)
        volume = front_volume(measured)
        save_front(front, volume, folder)
    ends = extremes(front)
    best = ends.filter(pl.col("loss") <= pl.col("best_loss")).height == len(OBJECTIVES)
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=240, float_precision=4, tbl_hide_dataframe_shape=True):
        print(front.select("^pi_.*$", "^.*_loss$", "^.*_recall_20$", "dominated", "ranks_trained"))
        print(ends)
    print(f"each end has the smallest loss of its objective: {'yes' if best else 'no'}")
    print(f"hypervolume: normalised {volume.normalised}; raw {volume.raw}, reference point {volume.reference}")
    print(f"non-dominated points: {front.height - front['dominated'].sum()} of {front.height}")
    print(f"processor seconds: {time.process_time() - began:.0f}")
    if options.json:
        figures = {"front": front.to_dicts(), "ends": ends.to_dicts(), "normalised": volume.normalised.value}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if best else 1


if __name__ == "__main__":
    sys.exit(main())
